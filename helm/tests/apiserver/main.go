// A kube-apiserver with an etcd of its own in the same process: apiserver FOLDER [FLAG...]
// Both are the projects' own code; FOLDER is etcd's, the flags are kube-apiserver's.
package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// etcd serves at a socket in its folder, and returns where.
func etcd(folder string) (string, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	socket := url.URL{Scheme: "unix", Path: filepath.Join(folder, "socket")}
	config := embed.NewConfig()
	config.Dir = filepath.Join(folder, "data")
	config.LogLevel = "warn"
	config.UnsafeNoFsync = true
	config.ListenClientUrls = []url.URL{socket}
	config.AdvertiseClientUrls = []url.URL{socket}
	// The only member: no peer ever connects.
	config.ListenPeerUrls = nil
	started, err := embed.StartEtcd(config)
	if err != nil {
		return "", err
	}
	<-started.Server.ReadyNotify()
	return socket.String(), nil
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: apiserver FOLDER [FLAG...]")
		os.Exit(2)
	}
	address, err := etcd(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
	command := app.NewAPIServerCommand()
	command.SetArgs(append([]string{"--etcd-servers=" + address}, os.Args[2:]...))
	os.Exit(cli.Run(command))
}
