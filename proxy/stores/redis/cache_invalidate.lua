-- Remembers an invalidation and tells of it. Returns its number, which is the generation that begins.
-- KEYS: the invalidations. ARGV: selector, 1 where it selects everything, how long to keep them in ms, most selectors,
--   channel, news. The invalidations: each selector with its last number; as 'floor', the highest that was given up.
local time = redis.call('TIME')
local number = time[1] * 1000000 + time[2]
local head = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
if head then
  number = math.max(number, tonumber(head) + 1) -- whatever the clock does
end
local shown = string.format('%.0f', number)
-- First, because a server that is full refuses a script at its first write alone, and only where that needs memory.
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[2] == '1' or not head then
  redis.call('UNLINK', KEYS[1])
  redis.call('ZADD', KEYS[1], shown, 'floor')
else
  redis.call('ZADD', KEYS[1], shown, ARGV[1])
  if redis.call('ZCARD', KEYS[1]) > tonumber(ARGV[4]) + 1 then
    local oldest = redis.call('ZRANGE', KEYS[1], 1, 1, 'WITHSCORES')
    redis.call('ZREM', KEYS[1], oldest[1])
    redis.call('ZADD', KEYS[1], oldest[2], 'floor')
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return shown
