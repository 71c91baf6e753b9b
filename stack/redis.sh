# shellcheck shell=bash
# Redis without persistence: a restart loses every claim, which the worker must survive.
# noeviction, because an evicted claim would be a silent repeat; full memory must be an error.

redis_healthy() { [[ $(redis-cli -p "$REDIS_PORT" ping 2>/dev/null) == PONG ]]; }

redis_start() {
  is_running redis && return
  require_free_port redis "$REDIS_PORT"
  start_process redis redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --dir "$DATA" \
    --save '' --appendonly no --maxmemory 512mb --maxmemory-policy noeviction
}

redis_ready() { wait_until redis redis_healthy; }
