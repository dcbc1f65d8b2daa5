"""What the store runs, each as one step that nothing else can come between (Lua, Redis 5 or later, and Valkey).

Of each key the store has two values, which expire by themselves. `spent` is a hash with the moments at which the key's
buckets of requests and of tokens are full again (see `keys.py`), in seconds of the store's clock, so that the clocks of
gateways do not matter. `running` is a sorted set with a lease for each request that runs, by the moment of its end.
"""

LEASE_S = 10
"""How long a request counts as running after its gateway was last heard of."""

_PRELUDE = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local function full_at(field)
  return math.max(tonumber(redis.call('HGET', KEYS[1], field) or now), now)
end
local function spend(field, cost)
  redis.call('HSET', KEYS[1], field, string.format('%.6f', full_at(field) + cost))
  local last = math.max(full_at('requests'), full_at('tokens'))
  redis.call('EXPIRE', KEYS[1], math.ceil(last - now) + 1)
end
local function hold(lease)
  redis.call('ZADD', KEYS[2], string.format('%.6f', now + LEASE_S), lease)
  redis.call('EXPIRE', KEYS[2], LEASE_S + 1)
end
""".replace("LEASE_S", str(LEASE_S))

# Arguments: the lease; the most that may run, -1 for no limit; what the request costs of the minute of requests and of
# that of tokens, in seconds, -1 without such a limit. Answers whether too many run, and for how long each rate has no
# room, in microseconds; a request without any of these is let in.
ENTER = (
    _PRELUDE
    + """
local most, is_full = tonumber(ARGV[2]), 0
if most >= 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.6f', now))
  if redis.call('ZCARD', KEYS[2]) >= most then is_full = 1 end
end
local costs = {requests = tonumber(ARGV[3]), tokens = tonumber(ARGV[4])}
local waits, is_over = {requests = 0, tokens = 0}, is_full == 1
for field, cost in pairs(costs) do
  local wait = full_at(field) - now + cost - 60
  if cost >= 0 and wait > 0.0001 then
    waits[field] = math.ceil(wait * 1000000)
    is_over = true
  end
end
if not is_over then
  for field, cost in pairs(costs) do
    if cost > 0 then spend(field, cost) end
  end
  if most >= 0 then hold(ARGV[1]) end
end
return {is_full, waits.requests, waits.tokens}
"""
)

# Arguments: the lease; what the request has used more than was estimated, in seconds of the minute of tokens.
LEAVE = (
    _PRELUDE
    + """
redis.call('ZREM', KEYS[2], ARGV[1])
if tonumber(ARGV[2]) ~= 0 then spend('tokens', tonumber(ARGV[2])) end
return 0
"""
)

# Arguments: the leases that go on.
RENEW = (
    _PRELUDE
    + """
for _, lease in ipairs(ARGV) do hold(lease) end
return 0
"""
)


def places(key: str) -> tuple[str, str]:
    """Where the store has what it counts of the key of this name: `spent` and `running`, on one node of a cluster."""
    return f"litport:{{{key}}}:spent", f"litport:{{{key}}}:running"
