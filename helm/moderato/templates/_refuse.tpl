{{/* Values that contradict each other end the rendering, each with the key to change. Takes root and w. */}}
{{- define "moderato.refuse" -}}
{{- $w := .w -}}
{{- $worker := $w.worker -}}
{{- $key := $w.key -}}
{{- $scaling := $worker.autoscaling -}}
{{- $partitions := int $worker.partitions -}}
{{- if not $w.config.kafka.brokers -}}
{{- fail (printf "%s.config.kafka.brokers: is required, as host:port" $key) -}}
{{- end -}}
{{- if not $worker.policies.use -}}
{{- fail (printf "%s.policies.use: is required, the file name of the policy" $key) -}}
{{- end -}}
{{- if and (not $worker.policies.existingConfigMap) (not (hasKey $worker.policies.files $worker.policies.use)) -}}
{{- fail (printf "%s.policies.files: has no `%s`; give it with --set-file, or name an existingConfigMap" $key $worker.policies.use) -}}
{{- end -}}
{{- if and $scaling.keda.enabled $scaling.hpa.enabled -}}
{{- fail (printf "%s.autoscaling: keda and hpa are both on; two autoscalers of one pool undo each other's work" $key) -}}
{{- end -}}
{{- if $w.autoscaled -}}
{{- if lt $partitions 1 -}}
{{- fail (printf "%s.partitions: is required with an autoscaler; a pod beyond the number of partitions idles" $key) -}}
{{- end -}}
{{- if gt (int $scaling.maxReplicas) $partitions -}}
{{- fail (printf "%s.autoscaling.maxReplicas: %d pods for %d partitions; the rest would idle" $key (int $scaling.maxReplicas) $partitions) -}}
{{- end -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas: is greater than maxReplicas" $key) -}}
{{- end -}}
{{- else if and (gt $partitions 0) (gt (int $worker.replicas) $partitions) -}}
{{- fail (printf "%s.replicas: %d pods for %d partitions; the rest would idle" $key (int $worker.replicas) $partitions) -}}
{{- end -}}
{{- if $scaling.hpa.enabled -}}
{{- if lt (int $scaling.minReplicas) 1 -}}
{{- fail (printf "%s.autoscaling.minReplicas: a HorizontalPodAutoscaler needs 1; only KEDA starts from 0" $key) -}}
{{- end -}}
{{- end -}}
{{- if $scaling.keda.enabled -}}
{{- if not (.root.Capabilities.APIVersions.Has "keda.sh/v1alpha1") -}}
{{- fail (printf "%s.autoscaling.keda: the cluster has no keda.sh/v1alpha1; install KEDA (for helm template: --api-versions keda.sh/v1alpha1)" $key) -}}
{{- end -}}
{{- $markers := include "moderato.markers" . | int -}}
{{- $activation := int $scaling.keda.activationLagThreshold -}}
{{- if and (ge $activation 0) (lt $activation $markers) -}}
{{- fail (printf "%s.autoscaling.keda.activationLagThreshold: with exactly_once, commit markers count as lag; at least %d, one a partition" $key $markers) -}}
{{- end -}}
{{- $secured := dig "options" "sasl.mechanism" "" $w.config.kafka -}}
{{- if and $secured (not $scaling.keda.secretTargetRef) (not $scaling.keda.authenticationRef) -}}
{{- fail (printf "%s.autoscaling.keda.secretTargetRef: the brokers ask for SASL, so KEDA needs username and password too" $key) -}}
{{- end -}}
{{- if and $scaling.keda.prometheus.enabled (not $scaling.keda.prometheus.serverAddress) -}}
{{- fail (printf "%s.autoscaling.keda.prometheus.serverAddress: is required" $key) -}}
{{- end -}}
{{- end -}}
{{- $onGpu := has (dig "model" "device" "cpu" $w.config) (list "cuda" "tensorrt" "tensorrt_rtx") -}}
{{- if and $onGpu (not $worker.gpu.resource) (not $worker.resourceClaims) -}}
{{- fail (printf "%s.gpu.resource: model.device is %s, so name the GPU's resource, such as nvidia.com/gpu" $key $w.config.model.device) -}}
{{- end -}}
{{- if and $worker.gpu.resource (eq (dig "model" "device" "cpu" $w.config) "cpu") -}}
{{- fail (printf "%s.gpu.resource: a GPU would be held and idle, for model.device is cpu; set %s.config.model.device" $key $key) -}}
{{- end -}}
{{- if and $worker.staticMembership (ne $worker.kind "StatefulSet") -}}
{{- fail (printf "%s.staticMembership: needs kind: StatefulSet; the pods of a Deployment change their names" $key) -}}
{{- end -}}
{{- if and $worker.engineCache.claimSpec (ne $worker.kind "StatefulSet") -}}
{{- fail (printf "%s.engineCache.claimSpec: needs kind: StatefulSet; a Deployment takes existingClaim" $key) -}}
{{- end -}}
{{- $model := $worker.model -}}
{{- if and (eq $model.source "claim") (not $model.claim.name) -}}
{{- fail (printf "%s.model.claim.name: is required with source: claim" $key) -}}
{{- end -}}
{{- if eq $model.source "init" -}}
{{- if or (not $model.init.image) (not $model.init.fetch) (not $model.init.manifestSha256) -}}
{{- fail (printf "%s.model.init: image, fetch and manifestSha256 are required with source: init" $key) -}}
{{- end -}}
{{- if hasSuffix ":latest" $model.init.image -}}
{{- fail (printf "%s.model.init.image: `latest` says nothing about what runs; name a digest" $key) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $model.source "image") (not (regexMatch "@sha256:[0-9a-f]{64}$" $model.image.reference)) -}}
{{- fail (printf "%s.model.image.reference: must end in @sha256: and the digest, so that verdicts come from one model" $key) -}}
{{- end -}}
{{- $both := and .root.Values.classify.enabled .root.Values.draftNote.enabled -}}
{{- if and $both (eq $key "draftNote") -}}
{{- $classify := include "moderato.worker" (dict "root" .root "key" "classify") | fromJson -}}
{{- if eq (dig "kafka" "group" "moderato" $classify.config) (dig "kafka" "group" "moderato" $w.config) -}}
{{- fail "draftNote.config.kafka.group: must differ from that of classify, or a rebalance of one pool would stop the other" -}}
{{- end -}}
{{- end -}}
{{- end }}
