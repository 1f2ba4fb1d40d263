-- How many answers there are, and for how many bytes they count. What has had its time goes out of the books, most of it.
-- KEYS: the index, the ends.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)) do
  local held = tonumber(string.match(redis.call('HGET', KEYS[1], key) or '', '^%d+'))
  redis.call('HDEL', KEYS[1], key)
  if held then
    redis.call('HINCRBY', KEYS[1], '', -held)
  end
  redis.call('ZREM', KEYS[2], key)
end
return {redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf'), tonumber(redis.call('HGET', KEYS[1], '') or 0)}
