{{/* Small things that every template uses. */}}

{{- define "moderato.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 43 characters, so that a suffix and the hash of a pod fit. */}}
{{- define "moderato.fullname" -}}
{{- $name := include "moderato.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 43 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 43 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 43 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "moderato.selector" -}}
app.kubernetes.io/name: {{ include "moderato.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "moderato.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "moderato.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Seconds of a duration such as `90s`, `2m`, `1h30m` or `500ms`, rounded up. Takes key and text. */}}
{{- define "moderato.seconds" -}}
{{- $text := .text | toString -}}
{{- if not (regexMatch "^([0-9]+(ms|h|m|s))+$" $text) -}}
{{- fail (printf "%s: `%s` is not a duration, such as 30s, 2m or 1h30m" .key $text) -}}
{{- end -}}
{{- $ms := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|h|m|s)" $text -1 -}}
{{- $sum = add $sum (mul (regexFind "^[0-9]+" . | int64) (get $ms (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{ div (add $sum 999) 1000 }}
{{- end }}

{{- define "moderato.image" -}}
{{- $image := .worker.image -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest }}
{{- else -}}
{{- $tag := default .root.Chart.AppVersion $image.tag -}}
{{- if eq $tag "latest" -}}
{{- fail (printf "%s.image.tag: `latest` says nothing about what runs; name a version or a digest" .key) -}}
{{- end -}}
{{ printf "%s:%s" $image.repository $tag }}
{{- end -}}
{{- end }}
