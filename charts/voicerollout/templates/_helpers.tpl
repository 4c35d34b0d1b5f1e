{{- define "voicerollout.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "voicerollout.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "voicerollout.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "voicerollout.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Name of cluster-wide objects: two releases of one name in two namespaces do not clash. */}}
{{- define "voicerollout.clusterName" -}}
{{- $name := include "voicerollout.fullname" . }}
{{- if eq $name .Release.Namespace }}{{ $name }}{{ else }}{{ printf "%s-%s" .Release.Namespace $name }}{{ end }}
{{- end }}

{{- define "voicerollout.selectorLabels" -}}
app.kubernetes.io/name: {{ include "voicerollout.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "voicerollout.labels" -}}
{{ include "voicerollout.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "voicerollout.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "voicerollout.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "voicerollout.leaseName" -}}
{{- default (include "voicerollout.fullname" .) .Values.leaderElection.leaseName }}
{{- end }}

{{/* Not empty when the dashboard can be reached through the Service. */}}
{{- define "voicerollout.dashboardServed" -}}
{{- if and .Values.dashboard.enabled (not (regexMatch "^(127\\.|\\[::1\\])" .Values.dashboard.listen)) }}yes{{ end }}
{{- end }}

{{/* Not empty when the operator is given a file with notifications. */}}
{{- define "voicerollout.tells" -}}
{{- if or .Values.notifications.link .Values.notifications.defaults }}yes{{ end }}
{{- end }}

{{/* What the operator does in a namespace that it manages. */}}
{{- define "voicerollout.rules" -}}
- apiGroups: [voicerollout.dev]
  resources: [voicerollouts]
  # patch: the finalizer
  verbs: [get, list, watch, patch]
- apiGroups: [voicerollout.dev]
  resources: [voiceanalysistemplates, voicerolloutactions]
  verbs: [get, list, watch]
- apiGroups: [voicerollout.dev]
  resources: [voiceanalysisruns]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [voicerollout.dev]
  resources: [voicerollouts/status, voiceanalysisruns/status, voicerolloutactions/status]
  verbs: [get, update, patch]
- apiGroups: [voicerollout.dev]
  # Messages that are not sent yet.
  resources: [voicerolloutoutboxes]
  verbs: [get, list, create, update, delete]
- apiGroups: [voicerollout.dev]
  # Owner references that block the owner's deletion ask for this.
  resources: [voicerollouts/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  # patch: labels and annotations of pods that carry calls and get no new ones
  verbs: [get, list, watch, patch]
- apiGroups: [policy]
  # Keeps pods that carry calls from being evicted.
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, delete]
- apiGroups: [autoscaling]
  # Autoscalers of single revisions: the preflight tells of them.
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  # patch: the revision in the selectors
  resources: [services]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  # By name, and only those with the label voicerollout.dev/use: gates, or notifications, are used.
  resources: [secrets]
  verbs: [get]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [networking.istio.io]
  resources: [virtualservices, destinationrules]
  verbs: [get, list, watch, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
