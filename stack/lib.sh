# shellcheck shell=bash
# What every part of the stack shares: where things live, which ports are ours, how a
# process is started, recognised again, awaited and stopped. Sourced, never run.

STACK=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RUN=$STACK/.run
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/crm-event-processors

# Not the usual ports, so that a developer's own servers do not clash; and below 32768,
# because Linux hands the ports above to outgoing connections and could take ours first.
KAFKA_PORT=${STACK_KAFKA_PORT:-31092}
KAFKA_SASL_PORT=${STACK_KAFKA_SASL_PORT:-31094}
CONTROLLER_PORT=${STACK_CONTROLLER_PORT:-31093}
CONNECT_PORT=${STACK_CONNECT_PORT:-31083}
POSTGRES_PORT=${STACK_POSTGRES_PORT:-31432}
POOLER_PORT=${STACK_POOLER_PORT:-31433}
REDIS_PORT=${STACK_REDIS_PORT:-31379}

# Quick to start rather than fast in the long run; no files of theirs survive a kill.
JAVA_FLAGS=(-Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData)
[[ -z ${STACK_JAVA_OPTS:-} ]] || read -ra JAVA_FLAGS <<<"$STACK_JAVA_OPTS"

say() { printf 'stack: %s\n' "$*"; }
die() { printf 'stack: %s\n' "$*" >&2; exit 1; }

# One data folder per `up`, outside the checkout: the postgres user must be able to reach it.
data_dir() {
  local dir=
  [[ ! -f $RUN/data-dir ]] || dir=$(<"$RUN/data-dir")
  if [[ ! -d $dir ]]; then
    dir=$(mktemp -d /var/tmp/crm-stack.XXXXXX)
    chmod 711 "$dir"
    mkdir "$dir/tmp"
    echo "$dir" >"$RUN/data-dir"
  fi
  echo "$dir"
}

# A pid alone may have been given to somebody else since; with its start time it is unique.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra stat <<<"${stat##*) }"
  [[ ${stat[0]} != Z ]] && echo "${stat[19]}"
}

is_running() { # name
  local pid started
  read -r pid started 2>/dev/null <"$RUN/$1.pid" || return 1
  [[ $(start_time "$pid") == "$started" ]]
}

start_process() { # name command...
  local name=$1 pid
  shift
  setsid "$@" >>"$RUN/logs/$name.log" 2>&1 </dev/null 9>&- &
  pid=$!
  echo "$pid $(start_time "$pid")" >"$RUN/$name.pid"
}

stop_process() { # name signal
  local pid started deadline=$((SECONDS + 10))
  if is_running "$1"; then
    read -r pid started <"$RUN/$1.pid"
    kill -s "$2" "$pid"
    while is_running "$1"; do
      ((SECONDS < deadline)) || kill -s KILL "$pid" || true
      sleep 0.05
    done
    say "$1 stopped"
  fi
  rm -f "$RUN/$1.pid"
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

require_free_port() { # name port
  port_open "$2" || return 0
  local owner
  owner=$(ss -Hltnp "sport = :$2" 2>/dev/null | grep -o 'users:.*' || true)
  die "port $2 for $1 is taken by a process that this stack did not start ${owner:+($owner)}
  Stop it, or choose another port with STACK_${1^^}_PORT."
}

fail_with_log() { # name message
  printf 'stack: %s\n---- last lines of %s\n' "$2" "$RUN/logs/$1.log" >&2
  tail -n 40 "$RUN/logs/$1.log" >&2 || true
  exit 1
}

# Longer than anything takes on a busy machine. A process that died is told at once.
PATIENCE=300

wait_until() { # name check...
  local name=$1 deadline=$((SECONDS + PATIENCE))
  shift
  until "$@"; do
    is_running "$name" || fail_with_log "$name" "$name stopped while it was starting"
    ((SECONDS < deadline)) || fail_with_log "$name" "$name is not healthy after $PATIENCE s ($*)"
    sleep 0.1
  done
}
