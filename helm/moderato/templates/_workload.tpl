{{/* The values of a workload, as JSON: `worker` with the workload's own over it. Takes root and key. */}}
{{- define "moderato.worker" -}}
{{- mustMergeOverwrite (deepCopy .root.Values.worker) (deepCopy (get .root.Values .key)) | toJson -}}
{{- end }}

{{/*
What there is to know of a workload, as JSON: its names, its values and the configuration of its process. Takes root and
key (`classify` or `draftNote`). Every contradiction in the values ends here.
*/}}
{{- define "moderato.workload" -}}
{{- $root := .root -}}
{{- $key := .key -}}
{{- $worker := include "moderato.worker" . | fromJson -}}
{{- if not $worker.enabled -}}
{"worker": {"enabled": false}}
{{- else -}}
{{- $slug := kebabcase $key -}}
{{- $selector := include "moderato.selector" $root | fromYaml -}}
{{- $_ := set $selector "app.kubernetes.io/component" $slug -}}
{{- $labels := mustMerge (dict "app.kubernetes.io/component" $slug) (include "moderato.labels" $root | fromYaml) -}}
{{- $w := dict "key" $key "slug" $slug "worker" $worker "selector" $selector "labels" $labels -}}
{{- $_ := set $w "name" (printf "%s-%s" (include "moderato.fullname" $root) $slug) -}}
{{- $_ := set $w "autoscaled" (or $worker.autoscaling.keda.enabled $worker.autoscaling.hpa.enabled) -}}
{{- $_ := set $w "config" (include "moderato.config" (dict "root" $root "key" $key "worker" $worker) | fromJson) -}}
{{- include "moderato.refuse" (dict "root" $root "w" $w) -}}
{{- toJson $w -}}
{{- end -}}
{{- end }}

{{/* The process's configuration, as JSON. What the chart mounts, it also names; whoever names it too is told. */}}
{{- define "moderato.config" -}}
{{- $worker := .worker -}}
{{- $given := $worker.config -}}
{{- if hasKey (default dict $given.model) "path" -}}
{{- fail (printf "%s.config.model.path: the chart sets it; use %s.model" .key .key) -}}
{{- end -}}
{{- if or (hasKey $given.kafka "password") (hasKey $given.kafka "tls_key_password") -}}
{{- fail (printf "%s.config.kafka: a password would lie open in a ConfigMap; use %s.secrets.kafka" .key .key) -}}
{{- end -}}
{{- if hasKey (dig "schema_registry" dict $given.kafka) "password" -}}
{{- fail (printf "%s.config.kafka.schema_registry: a password would lie open in a ConfigMap; use %s.secrets.schemaRegistry" .key .key) -}}
{{- end -}}
{{- $givenRedis := dig "cache" "redis" dict $given -}}
{{- if or (hasKey $givenRedis "password") (hasKey $givenRedis "hmac_key") -}}
{{- fail (printf "%s.config.cache.redis: a secret would lie open in a ConfigMap; use %s.secrets.redis" .key .key) -}}
{{- end -}}
{{- $model := dict "path" (include "moderato.modelPath" .) -}}
{{- $device := dig "model" "device" "cpu" $given -}}
{{- if and $worker.engineCache.enabled (has $device (list "tensorrt" "tensorrt_rtx" "openvino")) -}}
{{- $_ := set $model $device (dict "cache" "/var/cache/moderato/engines") -}}
{{- end -}}
{{- $options := dict -}}
{{- with $worker.secrets.kafkaTls -}}
{{- if .name -}}
{{- range $option, $file := dict "ssl.ca.location" .caKey "ssl.certificate.location" .certKey "ssl.key.location" .keyKey -}}
{{- with $file }}{{ $_ := set $options $option (printf "/etc/moderato/kafka-tls/%s" .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $kafka := dict -}}
{{- with $worker.secrets.kafka -}}
{{- if .name -}}
{{- range $option, $file := dict "password_file" .passwordKey "tls_key_password_file" .tlsKeyPasswordKey -}}
{{- with $file }}{{ $_ := set $kafka $option (printf "/etc/moderato/kafka-secret/%s" .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $options }}{{ $_ := set $kafka "options" . }}{{ end -}}
{{- $registry := dict -}}
{{- with $worker.secrets.schemaRegistry -}}
{{- if .name -}}
{{- range $option, $file := dict "password_file" .passwordKey "ca_file" .caKey -}}
{{- with $file }}{{ $_ := set $registry $option (printf "/etc/moderato/schema-registry/%s" .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $registry }}{{ $_ := set $kafka "schema_registry" . }}{{ end -}}
{{- $redis := dict -}}
{{- with $worker.secrets.redis -}}
{{- if .name -}}
{{- range $option, $file := dict "password_file" .passwordKey "hmac_key_file" .hmacKeyKey -}}
{{- with $file }}{{ $_ := set $redis $option (printf "/etc/moderato/redis-secret/%s" .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $worker.secrets.redisTls -}}
{{- if .name }}{{ $_ := set $redis "ca_file" (printf "/etc/moderato/redis-tls/%s" .caKey) }}{{ end -}}
{{- end -}}
{{- $own := dict
      "task" (snakecase .key)
      "admin" (dict "listen" "0.0.0.0:9464")
      "state_dir" "/var/lib/moderato"
      "policy" (printf "/etc/moderato/policies/%s" $worker.policies.use)
      "model" $model -}}
{{- with $kafka }}{{ $_ := set $own "kafka" . }}{{ end -}}
{{- with $redis }}{{ $_ := set $own "cache" (dict "redis" .) }}{{ end -}}
{{- /* With both pools, what one flags the other reads. */ -}}
{{- $values := .root.Values -}}
{{- if and (eq .key "classify") $values.classify.enabled $values.draftNote.enabled (not (dig "kafka" "topics" "flagged" "" $given)) -}}
{{- $note := (include "moderato.worker" (dict "root" .root "key" "draftNote") | fromJson).config -}}
{{- $_ := set $own "kafka" (mustMergeOverwrite (default dict $own.kafka) (dict "topics" (dict "flagged" $note.kafka.topics.posts))) -}}
{{- end -}}
{{- mustMergeOverwrite (deepCopy $given) $own | toJson -}}
{{- end }}

{{- define "moderato.modelPath" -}}
{{- $model := .worker.model -}}
{{- if eq $model.source "baked" -}}
{{ required (printf "%s.model.path: name the model folder in the image" .key) $model.path }}
{{- else -}}
{{ printf "/models/%s" $model.path | trimSuffix "/" }}
{{- end -}}
{{- end }}

{{/* Partitions in which commit markers count as lag: all where the posts are written, or offsets committed, in transactions. */}}
{{- define "moderato.markers" -}}
{{- $classify := include "moderato.worker" (dict "root" .root "key" "classify") | fromJson -}}
{{- $upstream := and (eq .w.key "draftNote") $classify.enabled (eq (dig "kafka" "delivery" "" $classify.config) "exactly_once") -}}
{{- ternary (int .w.worker.partitions) 0 (or $upstream (eq (dig "kafka" "delivery" "" .w.config) "exactly_once")) -}}
{{- end }}
