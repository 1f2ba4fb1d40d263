-- Drops answers that were asked for before a generation. Returns how many there were.
-- KEYS: the index, the ends. ARGV: what the keys of answers begin with, generation, cache keys.
local dropped, freed = 0, 0
for i = 3, #ARGV do
  local bytes, generation = string.match(redis.call('HGET', KEYS[1], ARGV[i]) or '', '^(%d+) (%d+) ')
  if bytes and tonumber(generation) < tonumber(ARGV[2]) then
    dropped = dropped + redis.call('UNLINK', ARGV[1] .. ARGV[i])
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
    freed = freed + tonumber(bytes)
  end
end
if freed > 0 then
  redis.call('HINCRBY', KEYS[1], '', -freed)
end
return dropped
