{{/* Pod spec of a workload. Takes root, w, verb (`run`, `check` for `helm test`, or `replay`) and further arguments. */}}
{{- define "moderato.pod" -}}
{{- $root := .root -}}
{{- $w := .w -}}
{{- $worker := $w.worker -}}
{{- $run := eq .verb "run" -}}
{{- $own := $worker.engineCache.claimSpec -}}
automountServiceAccountToken: false
{{- with $worker.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
enableServiceLinks: false
{{- if ne .verb "check" }}
terminationGracePeriodSeconds: {{ add 20 (include "moderato.seconds" (dict "key" (printf "%s.config.shutdown.grace" $w.key) "text" (dig "shutdown" "grace" "30s" $w.config))) }}
{{- end }}
{{- if not $run }}
restartPolicy: Never
{{- end }}
{{- with $worker.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ toYaml $worker.podSecurityContext | nindent 2 }}
{{- with $worker.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $worker.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $worker.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- if or $worker.tolerations $worker.gpu.resource }}
tolerations:
  {{- if $worker.gpu.resource }}
  - {key: {{ printf "%s/gpu" (splitList "/" $worker.gpu.resource | first) }}, operator: Exists, effect: NoSchedule}
  {{- end }}
  {{- with $worker.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with $worker.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- if and $run $worker.topologySpread }}
topologySpreadConstraints:
  {{- range $worker.topologySpread }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ toYaml $w.selector | nindent 8 }}
  {{- end }}
{{- end }}
{{- with $worker.resourceClaims }}
resourceClaims: {{ toYaml . | nindent 2 }}
{{- end }}
{{- if eq $worker.model.source "init" }}
initContainers:
  - name: model
    image: {{ $worker.model.init.image }}
    command: [/bin/sh, -euc]
    args:
      - |
        mkdir -p "$MODEL_DIR"
        {{- $worker.model.init.fetch | trim | nindent 8 }}
        echo "$MANIFEST_SHA256  $MODEL_DIR/manifest.json" | sha256sum -c -
    env:
      - {name: MODEL_DIR, value: {{ include "moderato.modelPath" (dict "worker" $worker "key" $w.key) }}}
      - {name: MANIFEST_SHA256, value: {{ $worker.model.init.manifestSha256 | quote }}}
      {{- with $worker.model.init.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $worker.model.init.envFrom }}
    envFrom: {{ toYaml . | nindent 6 }}
    {{- end }}
    securityContext: {{ toYaml $worker.securityContext | nindent 6 }}
    resources: {{ toYaml $worker.model.init.resources | nindent 6 }}
    volumeMounts:
      - {name: model, mountPath: /models}
      - {name: tmp, mountPath: /tmp}
{{- end }}
containers:
  - name: moderato
    image: {{ include "moderato.image" (dict "root" $root "worker" $worker "key" $w.key) }}
    imagePullPolicy: {{ $worker.image.pullPolicy }}
    command: [moderato]
    args: {{ concat (list .verb "-c" "/etc/moderato/config/moderato.yaml") (default list .arguments) | toJson }}
    env:
      - name: POD_NAME
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      {{- if eq .verb "replay" }}
      - name: REPLAY_ID
        valueFrom: {fieldRef: {fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}}
      {{- end }}
      {{- if and $worker.staticMembership $run }}
      - {name: MODERATO__KAFKA__OPTIONS__GROUP_INSTANCE_ID, value: $(POD_NAME)}
      {{- end }}
      {{- with $worker.telemetry.otlpEndpoint }}
      - {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
      - name: OTEL_RESOURCE_ATTRIBUTES
        value: k8s.namespace.name={{ $root.Release.Namespace }},k8s.{{ lower $worker.kind }}.name={{ $w.name }},k8s.pod.name=$(POD_NAME)
      {{- end }}
      {{- with $worker.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $worker.extraEnvFrom }}
    envFrom: {{ toYaml . | nindent 6 }}
    {{- end }}
    securityContext: {{ toYaml $worker.securityContext | nindent 6 }}
    resources: {{ include "moderato.resources" $worker | nindent 6 }}
    {{- if $run }}
    ports:
      - {name: admin, containerPort: 9464}
    startupProbe:
      httpGet: {path: /startupz, port: admin}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: {{ div (add 9 (include "moderato.startupSeconds" $w)) 10 }}
    readinessProbe:
      httpGet: {path: /readyz, port: admin}
      {{- toYaml $worker.readinessProbe | nindent 6 }}
    livenessProbe:
      httpGet: {path: /livez, port: admin}
      {{- toYaml $worker.livenessProbe | nindent 6 }}
    {{- end }}
    volumeMounts:
      - {name: config, mountPath: /etc/moderato/config, readOnly: true}
      - {name: policies, mountPath: /etc/moderato/policies, readOnly: true}
      - {name: state, mountPath: /var/lib/moderato}
      - {name: tmp, mountPath: /tmp}
      {{- if ne $worker.model.source "baked" }}
      - {name: model, mountPath: /models, readOnly: true}
      {{- end }}
      {{- if $worker.engineCache.enabled }}
      - {name: engines, mountPath: /var/cache/moderato}
      {{- end }}
      {{- range $volume, $secret := include "moderato.secretVolumes" $worker | fromYaml }}
      - {name: {{ $volume }}, mountPath: /etc/moderato/{{ $volume }}, readOnly: true}
      {{- end }}
      {{- with $worker.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: config
    configMap: {name: {{ $w.name }}}
  - name: policies
    configMap: {name: {{ default (printf "%s-policies" $w.name) $worker.policies.existingConfigMap }}}
  - name: state
    emptyDir: {sizeLimit: 64Mi}
  - name: tmp
    emptyDir: {sizeLimit: 1Gi}
  {{- if eq $worker.model.source "claim" }}
  - name: model
    persistentVolumeClaim: {claimName: {{ $worker.model.claim.name }}, readOnly: true}
  {{- else if eq $worker.model.source "init" }}
  - name: model
    emptyDir: {sizeLimit: {{ $worker.model.init.sizeLimit }}}
  {{- else if eq $worker.model.source "image" }}
  - name: model
    image: {{ toYaml $worker.model.image | nindent 6 }}
  {{- end }}
  {{- /* The test has no claim of its own, and must not wait for another pod's. */}}
  {{- if and $worker.engineCache.enabled (not (and $run $own)) }}
  - name: engines
    {{- if and $run $worker.engineCache.existingClaim }}
    persistentVolumeClaim: {claimName: {{ $worker.engineCache.existingClaim }}}
    {{- else }}
    emptyDir: {sizeLimit: {{ $worker.engineCache.sizeLimit }}}
    {{- end }}
  {{- end }}
  {{- range $volume, $secret := include "moderato.secretVolumes" $worker | fromYaml }}
  - name: {{ $volume }}
    secret: {secretName: {{ $secret }}}
  {{- end }}
  {{- with $worker.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "moderato.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if .gpu.resource -}}
{{- $gpu := dict .gpu.resource (int .gpu.count) -}}
{{- $resources = mustMergeOverwrite $resources (dict "requests" $gpu "limits" (deepCopy $gpu)) -}}
{{- end -}}
{{- with .resourceClaims -}}
{{- $names := list -}}
{{- range . }}{{ $names = append $names (dict "name" .name) }}{{ end -}}
{{- $_ := set $resources "claims" $names -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* Volume to secret. Mounted as folders, so that a changed secret arrives. */}}
{{- define "moderato.secretVolumes" -}}
{{- range $volume, $secret := dict "kafka-secret" .secrets.kafka.name "kafka-tls" .secrets.kafkaTls.name "redis-secret" .secrets.redis.name "redis-tls" .secrets.redisTls.name "schema-registry" .secrets.schemaRegistry.name }}
{{- with $secret }}
{{ $volume }}: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Seconds that the model may take to load. */}}
{{- define "moderato.startupSeconds" -}}
{{- $device := dig "model" "device" "cpu" .config -}}
{{- $text := default (ternary "30m" "5m" (has $device (list "tensorrt" "tensorrt_rtx"))) .worker.startup.timeout -}}
{{ include "moderato.seconds" (dict "key" (printf "%s.startup.timeout" .key) "text" $text) }}
{{- end }}
