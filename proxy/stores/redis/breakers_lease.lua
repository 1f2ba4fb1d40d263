-- One lease a subject. Returns {0, version, data} where the owner has it now, else {ms that somebody else still has it, ...}.
-- KEYS: the lease, the hash of records. ARGV: owner, its time in ms, subject.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local version, ends, data = string.match(redis.call('HGET', KEYS[2], ARGV[3]) or '', '^(%d+) (%d+) (.*)$')
if not version or #version > 15 or #ends > 15 or tonumber(ends) <= now then
  version, data = 0, ''
end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return {math.max(redis.call('PTTL', KEYS[1]), 1), tonumber(version), data}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {0, tonumber(version), data}
