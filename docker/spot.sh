#!/bin/sh
# Waits until a cloud says that it will take this machine away, and then runs a command, once:
#   docker/spot.sh aws|gcp|azure docker compose -f docker/compose.yaml --profile '*' stop
# It asks the machine's own metadata every 2 s and needs curl. It keeps waiting while the metadata cannot be reached.
set -u
cloud=${1:-}
metadata=${METADATA:-http://169.254.169.254}
case $cloud in
  aws | gcp | azure) shift ;;
  *)
    echo "spot.sh: expected aws, gcp or azure and a command, got '$cloud'" >&2
    exit 2
    ;;
esac

ask() { curl -sf -m 2 "$@"; }

noticed() {
  case $cloud in
    aws) # 404 until there is a notice
      token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/latest/api/token") &&
        ask -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/spot/instance-action"
      ;;
    gcp)
      [ "$(ask -H 'Metadata-Flavor: Google' "$metadata/computeMetadata/v1/instance/preempted")" = TRUE ]
      ;;
    azure)
      ask -H 'Metadata: true' "$metadata/metadata/scheduledevents?api-version=2020-07-01" | grep -q '"Preempt"'
      ;;
  esac
}

until noticed; do sleep 2; done
echo "spot.sh: this machine will be taken away; running: $*" >&2
exec "$@"
