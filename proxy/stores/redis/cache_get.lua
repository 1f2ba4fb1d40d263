-- An answer, whether somebody fetches it, and what was invalidated since the caller last heard of it. Returns
-- {answer or nothing, 0 or 1}, and where there is news: generation, floor, {selector, number, ...} from there on.
-- Where nothing is known of invalidations they begin anew, with all that was asked for before as stale.
-- KEYS: the answer, its lease, the invalidations. ARGV: generation that the caller knows, how long to keep those in ms.
local answer = redis.pcall('GET', KEYS[1])
if type(answer) == 'table' then
  answer = false -- an error: it is of another type
end
local leased = redis.call('EXISTS', KEYS[2])
local head = redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')[2]
if head == ARGV[1] then
  return {answer, leased}
end
if not head then
  local time = redis.call('TIME')
  head = string.format('%.0f', time[1] * 1000000 + time[2])
  redis.call('ZADD', KEYS[3], head, 'floor')
  redis.call('PEXPIRE', KEYS[3], ARGV[2])
end
-- A generation lower than the caller's is of a replica that had not heard of all: the caller begins anew, too.
local from = tonumber(head) > tonumber(ARGV[1]) and '(' .. ARGV[1] or '-inf'
return {answer, leased, head, redis.call('ZSCORE', KEYS[3], 'floor'),
  redis.call('ZRANGEBYSCORE', KEYS[3], from, '+inf', 'WITHSCORES')}
