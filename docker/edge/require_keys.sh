#!/bin/sh
# Runs a command (the edge) once Litport refuses a request without a key, and ends with 1 where it answers one: what
# stands on a network must not be open to everybody. Any other answer, or none, is told and waited out.
#   require_keys.sh http://litport:8000 COMMAND...
set -u
trap 'exit 0' INT TERM QUIT # process 1 of a container has no other way to hear of its end
url=$1/v1/models
shift
told=nothing
while :; do
  answer=$(wget -S -O /dev/null -T 5 "$url" 2>&1)
  case $answer in
    *" 401"*) exec "$@" ;;
    *" 200 "*)
      echo "the edge stays closed: $url is answered without a key; put keys into docker/secrets (docs/deployment.md)" >&2
      exit 1
      ;;
  esac
  if [ "$answer" != "$told" ]; then
    echo "the edge waits for a 401 from $url, and got: $answer" >&2
    told=$answer
  fi
  sleep 2
done
