// Publishes posts: go run . BROKERS TOPIC SCHEMA < posts.jsonl
// Each line is a post.v1; it is sent as it stands, with its id as key, so that edits of a post stay in order, and with a
// W3C traceparent. A line that does not fit the schema is told and not sent.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A new trace. Where a request is being traced, hand on its own context: otel.GetTextMapPropagator().
func traceparent() []byte {
	ids := make([]byte, 24)
	rand.Read(ids)
	return fmt.Appendf(nil, "00-%x-%x-01", ids[:16], ids[16:])
}

func main() {
	post := jsonschema.NewCompiler().MustCompile(os.Args[3])
	// Idempotent by default: what is sent again after a lost answer is stored once.
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(os.Args[1], ",")...), kgo.DefaultProduceTopic(os.Args[2]))
	if err != nil {
		panic(err)
	}
	answers, produced, refused := kgo.AbortingFirstErrPromise(client), 0, 0
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for number := 1; lines.Scan(); number++ {
		line := bytes.Clone(lines.Bytes())
		value, fault := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if fault == nil {
			fault = post.Validate(value)
		}
		if fault != nil {
			fmt.Fprintf(os.Stderr, "line %d: %v\n", number, fault)
			refused++
			continue
		}
		record := kgo.KeySliceRecord([]byte(value.(map[string]any)["id"].(string)), line)
		record.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: traceparent()}}
		client.Produce(context.Background(), record, answers.Promise())
		produced++
	}
	client.Flush(context.Background())
	if err := errors.Join(lines.Err(), answers.Err()); err != nil {
		panic(err)
	}
	fmt.Println("produced", produced)
	os.Exit(min(refused, 1))
}
