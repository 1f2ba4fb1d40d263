-- Everything held, as a flat list of subject, version, data. Drops what has had its time.
-- KEYS: the hash of records. A field's value is "<version> <end in ms> <data>".
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local flat = redis.call('HGETALL', KEYS[1])
local found, gone = {}, {}
for i = 1, #flat, 2 do
  local version, ends, data = string.match(flat[i + 1], '^(%d+) (%d+) (.*)$')
  if version and tonumber(ends) > now then
    found[#found + 1] = flat[i]
    found[#found + 1] = version
    found[#found + 1] = data
  else
    gone[#gone + 1] = flat[i]
  end
end
for i = 1, #gone do
  redis.call('HDEL', KEYS[1], gone[i])
end
return found
