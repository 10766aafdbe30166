{{- define "chorus.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels of a component: list of root, component, member (or ""). */}}
{{- define "chorus.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- with index . 2 }}
chorus.member: {{ . }}
{{- end }}
{{- end }}

{{- define "chorus.labels" -}}
{{ include "chorus.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- end }}

{{/* list of root, image of a member or {} */}}
{{- define "chorus.image" -}}
{{- $root := index . 0 -}}
{{- $image := mergeOverwrite (deepCopy $root.Values.image) (deepCopy (index . 1)) -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* What holds for every pod. */}}
{{- define "chorus.pod" -}}
serviceAccountName: {{ include "chorus.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/* What holds for every container. */}}
{{- define "chorus.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{/* Pods of the same kind keep apart. */}}
{{- define "chorus.spread" -}}
{{- $selector := include "chorus.selector" . -}}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{ $selector | nindent 6 }}
{{- end }}
{{- end }}

{{- define "chorus.autoscaling" -}}
minReplicas: {{ .minReplicas }}
maxReplicas: {{ .maxReplicas }}
behavior:
  scaleUp:
    stabilizationWindowSeconds: 0
    policies: [{ type: Percent, value: 100, periodSeconds: 30 }]
  scaleDown:
    stabilizationWindowSeconds: 300
    policies: [{ type: Pods, value: 1, periodSeconds: 60 }]
{{- end }}

{{/* How health is asked for: list of root, port, service, name in the certificate. */}}
{{- define "chorus.probe" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.tls.enabled -}}
exec:
  command:
    - /usr/local/bin/chorus
    - health
    - --addr=https://127.0.0.1:{{ index . 1 }}
    - --service={{ index . 2 }}
    - --tls-ca=/tls/ca.crt
    - --tls-cert=/tls/tls.crt
    - --tls-key=/tls/tls.key
    - --tls-server-name={{ index . 3 }}
{{- else -}}
grpc: { port: {{ index . 1 }}, service: {{ index . 2 }} }
{{- end }}
{{- end }}

{{/* Where names are looked up, as a rule of a NetworkPolicy. */}}
{{- define "chorus.names" -}}
- to: {{ toYaml .dns | nindent 4 }}
  ports:
    - { protocol: UDP, port: 53 }
    - { protocol: TCP, port: 53 }
{{- end }}

{{/* The coordinators' configuration. */}}
{{- define "chorus.ensemble" -}}
listen = "0.0.0.0:{{ .Values.coordinator.port }}"
metrics = "0.0.0.0:{{ .Values.metrics.port }}"
{{- if .Values.page.enabled }}
http = "0.0.0.0:{{ .Values.page.port }}"
{{- $name := include "chorus.name" . }}
{{- $names := list $name (print $name "." .Release.Namespace) (print $name "." .Release.Namespace ".svc") (print $name "." .Release.Namespace ".svc.cluster.local") }}
http_hosts = {{ concat $names .Values.page.hosts | toJson }}
{{- end }}
{{- if .Values.ensemble.weights }}
weights = "weights.toml"
{{- end }}
{{- range .Values.members }}

[[members]]
name = {{ .name | toJson }}
weight = {{ dig "weight" 1 . }}
address = "{{ $.Values.tls.enabled | ternary "dns+https" "dns" }}://{{ include "chorus.name" $ }}-{{ .name }}:{{ $.Values.worker.port }}"
{{- end }}
{{- with .Values.ensemble.fallback }}

[fallback]
name = {{ .name | toJson }}
address = {{ .address | toJson }}
{{- end }}

[fusion]
rule = {{ .Values.ensemble.rule | toJson }}
threshold = {{ .Values.ensemble.threshold }}

[quorum]
members = {{ .Values.ensemble.quorum.members }}
weight = {{ .Values.ensemble.quorum.weight }}
{{- if .Values.tls.enabled }}

[tls]
certificate = "/tls/tls.crt"
key = "/tls/tls.key"
{{- if .Values.tls.clientCertificates }}
client_ca = "/tls/ca.crt"
{{- end }}

[worker_tls]
ca = "/tls/ca.crt"
certificate = "/tls/tls.crt"
key = "/tls/tls.key"
{{- end }}
{{- if .Values.auth.tokensSecret }}

[auth]
tokens = "/auth/tokens.toml"
open_reflection = {{ .Values.auth.openReflection }}
{{- end }}
{{- with .Values.ensemble.extra }}

{{ . | trim }}
{{- end }}
{{ end }}
