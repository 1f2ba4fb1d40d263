-- The limits of proxy/core/limiting.py, step for step: its essay says what they are, this file only where they are kept.
--
-- KEYS[1]: a sorted set of the workers, by until when they are believed to live. Then two for each claim of a subject: a hash
-- (r, ra: what is used of its requests, and as of when; t, ta: of its tokens) and a sorted set of its leases, by their ends.
-- ARGV: the operation, the time in Unix ms (empty: the server's), how long a lease lasts, then what the operation says. A limit
-- that there is not is -1. Numbers are below 2^53, which a double holds exactly, and are written without an exponent.

local REQUEST_UNIT = 1000000
local TOKEN_UNIT = 60000
local DEBT = 10
local KEPT_MS = 90000000

local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local lease_ms = tonumber(ARGV[3])

local function written(number)
  return string.format('%.0f', number + 0) -- + 0: no "-0"
end

local function keys_of(index)
  return KEYS[2 * index], KEYS[2 * index + 1]
end

-- What is used by now of what was at a moment, and the later one of the two moments.
local function leaked(used, at, per_ms)
  used, at = tonumber(used or 0), tonumber(at or 0)
  return math.max(0, used - per_ms * math.max(0, now - at)), math.max(at, now)
end

local function expire(leases)
  redis.call('ZREMRANGEBYSCORE', leases, '-inf', written(now))
end

-- How long until so many parts fit; 0: they do. nil: never.
local function wait_of(size, per_ms, used, parts)
  if parts > size then
    return nil
  end
  return math.max(0, -math.floor((size - used - parts) / per_ms))
end

-- A claim brought to now. Its five numbers stand at ARGV[first]: requests' size and rate, tokens' size and rate, slots.
local function caught_up(index, first)
  local claim = {r_size = tonumber(ARGV[first]), r_rate = tonumber(ARGV[first + 1]), t_size = tonumber(ARGV[first + 2]),
    t_rate = tonumber(ARGV[first + 3]), slots = tonumber(ARGV[first + 4])}
  claim.state, claim.leases = keys_of(index)
  local read = redis.call('HMGET', claim.state, 'r', 'ra', 't', 'ta')
  claim.r, claim.ra = tonumber(read[1] or 0), tonumber(read[2] or 0)
  claim.t, claim.ta = tonumber(read[3] or 0), tonumber(read[4] or 0)
  if claim.r_size >= 0 then
    claim.r, claim.ra = leaked(claim.r, claim.ra, claim.r_rate)
  end
  if claim.t_size >= 0 then
    claim.t, claim.ta = leaked(claim.t, claim.ta, claim.t_rate)
  end
  expire(claim.leases)
  claim.running = redis.call('ZCARD', claim.leases)
  return claim
end

local function save(claim)
  redis.call('HSET', claim.state, 'r', written(claim.r), 'ra', written(claim.ra), 't', written(claim.t), 'ta', written(claim.ta))
  redis.call('PEXPIRE', claim.state, KEPT_MS)
end

local function lease(leases, id)
  redis.call('ZADD', leases, written(now + lease_ms), id)
  redis.call('PEXPIRE', leases, KEPT_MS)
end

-- What a claim lacks, and for how long; nil: nothing.
local function lacks(claim, tokens)
  if claim.r_size >= 0 then
    local wait = wait_of(claim.r_size, claim.r_rate, claim.r, REQUEST_UNIT)
    if wait ~= 0 then
      return 'requests', wait
    end
  end
  if claim.t_size >= 0 then
    local wait = wait_of(claim.t_size, claim.t_rate, claim.t, tokens * TOKEN_UNIT)
    if wait ~= 0 then
      return 'tokens', wait
    end
  end
  if claim.slots >= 0 and claim.running >= claim.slots then
    return 'slots', nil
  end
  return nil
end

local function append_standings(reply, claims)
  for _, claim in ipairs(claims) do
    reply[#reply + 1] = claim.r
    reply[#reply + 1] = claim.t
    reply[#reply + 1] = claim.running
  end
  return reply
end

local operations = {}

-- lease id, tokens, then five numbers a claim. Replies: the claim refused (0: none), what it lacks, the wait (-1: unknown), and
-- three numbers for each claim.
function operations.take()
  local id, tokens = ARGV[4], tonumber(ARGV[5])
  local claims = {}
  for index = 1, (#ARGV - 5) / 5 do
    claims[index] = caught_up(index, 1 + 5 * index)
  end
  for index, claim in ipairs(claims) do
    local what, wait = lacks(claim, tokens)
    if what then
      for _, one in ipairs(claims) do
        save(one)
      end
      return append_standings({index, what, wait or -1}, claims)
    end
  end
  for _, claim in ipairs(claims) do
    if claim.r_size >= 0 then
      claim.r = claim.r + REQUEST_UNIT
    end
    if claim.t_size >= 0 then
      claim.t = claim.t + tokens * TOKEN_UNIT
    end
    if claim.t_size >= 0 or claim.slots >= 0 then
      lease(claim.leases, id)
      claim.running = redis.call('ZCARD', claim.leases)
    end
    save(claim)
  end
  return append_standings({0, '', -1}, claims)
end

-- worker, then for each lease its id and how many claims it has. Replies: how many workers there are.
function operations.renew()
  local index = 0
  for argument = 5, #ARGV, 2 do
    for _ = 1, tonumber(ARGV[argument + 1]) do
      index = index + 1
      local _, leases = keys_of(index)
      lease(leases, ARGV[argument])
    end
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', written(now))
  redis.call('ZADD', KEYS[1], written(now + lease_ms), ARGV[4])
  redis.call('PEXPIRE', KEYS[1], KEPT_MS)
  return redis.call('ZCARD', KEYS[1])
end

-- for each settlement and each of its claims: lease id, change, the tokens' size and rate
function operations.settle()
  for index = 1, (#ARGV - 3) / 4 do
    local first = 4 * index
    local id, change, size, rate = ARGV[first], tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3])
    local state, leases = keys_of(index)
    expire(leases)
    if redis.call('ZREM', leases, id) == 1 and size >= 0 then
      local read = redis.call('HMGET', state, 't', 'ta')
      local used, at = leaked(read[1] or 0, read[2] or 0, rate)
      used = math.min(math.max(0, used + change * TOKEN_UNIT), size * DEBT)
      redis.call('HSET', state, 't', written(used), 'ta', written(at))
      redis.call('PEXPIRE', state, KEPT_MS)
    end
  end
  return 0
end

-- five numbers a claim. Replies: three numbers for each.
function operations.look()
  local claims = {}
  for index = 1, (#ARGV - 3) / 5 do
    claims[index] = caught_up(index, 5 * index - 1)
    save(claims[index])
  end
  return append_standings({}, claims)
end

function operations.reset()
  return redis.call('UNLINK', keys_of(1))
end

return operations[ARGV[1]]()
