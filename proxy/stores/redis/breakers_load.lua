-- Everything held, as one string, because a reply of many is slow to read: of each record a line with the lengths of
-- subject and data and the version between, then both. Drops what has had its time.
-- KEYS: the hash of records. A field's value is "<version> <end in ms> <data>".
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local flat = redis.call('HGETALL', KEYS[1])
local found, gone = {}, {}
for i = 1, #flat, 2 do
  local version, ends, data = string.match(flat[i + 1], '^(%d+) (%d+) (.*)$')
  if version and #version < 16 and #ends < 16 and tonumber(ends) > now then
    found[#found + 1] = #flat[i] .. ' ' .. version .. ' ' .. #data .. '\n'
    found[#found + 1] = flat[i]
    found[#found + 1] = data
  else
    gone[#gone + 1] = flat[i]
  end
end
for i = 1, #gone do
  redis.call('HDEL', KEYS[1], gone[i])
end
return table.concat(found)
