-- Keeps an answer, and enters it into the books. Returns 1, or 0 where it was not taken.
-- KEYS: the answer, the index, the ends, the invalidations.
-- ARGV: cache key, answer, its time in ms, its generation, its labels, bytes it counts for, most bytes,
--   how long to keep the books in ms, what the keys of answers begin with.
-- The index: of each cache key "<bytes> <generation> <labels>", and as '' the sum of bytes. The ends: when each is gone.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local bytes, bytes_max = tonumber(ARGV[6]), tonumber(ARGV[7])

local function forget(key)
  local held = tonumber(string.match(redis.call('HGET', KEYS[2], key) or '', '^%d+'))
  redis.call('HDEL', KEYS[2], key)
  if held then
    redis.call('HINCRBY', KEYS[2], '', -held)
  end
  redis.call('ZREM', KEYS[3], key)
end

-- A server that is full refuses a script at its first write alone, and a removal it lets pass. So this one comes first.
redis.call('HINCRBY', KEYS[2], '', 0)

for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 64)) do
  forget(key)
end

-- Of two the one that was asked for later is kept.
local generation = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^%d+ (%d+) ')
if generation and tonumber(generation) > tonumber(ARGV[4]) and redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
forget(ARGV[1])

-- So many at once do not keep the server from others; the next one finds what room was made.
for _ = 1, 256 do
  if tonumber(redis.call('HGET', KEYS[2], '') or 0) + bytes <= bytes_max then
    break
  end
  local first = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  if first then
    redis.call('UNLINK', ARGV[9] .. first)
    forget(first)
  else
    redis.call('UNLINK', KEYS[2]) -- the sum is wrong: the ends were evicted, the index was not
  end
end
if tonumber(redis.call('HGET', KEYS[2], '') or 0) + bytes > bytes_max then
  redis.call('UNLINK', KEYS[1])
  return 0
end

redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[6] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
redis.call('HINCRBY', KEYS[2], '', bytes)
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[3]), ARGV[1])
for i = 2, 4 do
  redis.call('PEXPIRE', KEYS[i], ARGV[8])
end
return 1
