-- Compare and set of one record, and the news of it. Returns nothing where it was done, else {version, data} held.
-- KEYS: the hash of records. ARGV: subject, expected version, data, its time in ms, the hash's, most fields, channel, news.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function parsed(value)
  local version, ends, data = string.match(value or '', '^(%d+) (%d+) (.*)$')
  if version and #version < 16 and #ends < 16 and tonumber(ends) > now then
    return tonumber(version), tonumber(ends), data
  end
  return 0, 0, ''
end

-- Dropped first: what has had its time; if nothing has, what will have it next.
local function make_room()
  local flat = redis.call('HGETALL', KEYS[1])
  local next_subject, next_ends, dropped = nil, math.huge, 0
  for i = 1, #flat, 2 do
    local _, ends = parsed(flat[i + 1])
    if ends == 0 then
      redis.call('HDEL', KEYS[1], flat[i])
      dropped = dropped + 1
    elseif ends < next_ends then
      next_subject, next_ends = flat[i], ends
    end
  end
  if dropped == 0 and next_subject then
    redis.call('HDEL', KEYS[1], next_subject)
  end
end

local value = redis.call('HGET', KEYS[1], ARGV[1])
local version, _, data = parsed(value)
if version ~= tonumber(ARGV[2]) then
  return {version, data}
end
if not value and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[6]) then
  make_room()
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %d ', version + 1, now + tonumber(ARGV[4])) .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PUBLISH', ARGV[7], ARGV[8])
return false
