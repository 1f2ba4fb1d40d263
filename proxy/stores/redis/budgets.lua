-- The books of proxy/core/budget.py, step for step: its essay says what they are, this file only where they are kept.
--
-- KEYS[1]: a hash of the books that somebody is seeding, to until when. Then two for each book: a hash with the fields of
-- FIXED and one `x:<exchange>` for each entry ("<amount> <admitted> <1 held, 0 lapsed>"), and a sorted set of the entries'
-- ends. The two are one state: where they do not match, one of them was evicted, and the other goes too.
-- ARGV: the operation, the time in Unix ms (empty: the server's), then what the operation says.
-- Numbers are below 2^53, which a double holds exactly, and are written without an exponent.

local MONEY_MAX = 9007199254740991
local LAPSED_KEPT_MS = 300000
local OPEN_MAX = 10000
local AUDIT_EXCEPT_MAX = 2000
local SEEDING_KEPT_MS = 3600000
local FIXED = 9 -- epoch, spent, held, mark, since, audits, audited, alerted, alerted_by

local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function written(number)
  return string.format('%.0f', number + 0) -- + 0: no "-0"
end

local function unpacked(packed)
  if not packed then
    return nil
  end
  local amount, admitted, held = string.match(packed, '^(%d+) (%d+) ([01])$')
  return {amount = tonumber(amount), admitted = tonumber(admitted), held = held == '1'}
end

local function add(book, field, amount)
  book[field] = book[field] + amount
  redis.call('HINCRBY', book.state, field, written(amount))
end

local function put(book, id, entry, until_ms, new)
  if new and entry.admitted < book.mark then
    redis.call('HINCRBY', book.state, 'audits', 1)
  end
  local packed = written(entry.amount) .. ' ' .. written(entry.admitted) .. ' ' .. (entry.held and '1' or '0')
  redis.call('HSET', book.state, 'x:' .. id, packed)
  redis.call('ZADD', book.leases, written(until_ms), id)
  if book.open == 0 then
    redis.call('PEXPIRE', book.leases, redis.call('PTTL', book.state))
  end
end

local function drop(book, id, entry)
  redis.call('HDEL', book.state, 'x:' .. id)
  redis.call('ZREM', book.leases, id)
  book.open = book.open - 1
  if entry.held then
    add(book, 'held', -entry.amount)
  end
end

local function expire(book)
  while true do
    local ended = redis.call('ZRANGEBYSCORE', book.leases, '-inf', written(now), 'WITHSCORES', 'LIMIT', 0, 100)
    if #ended == 0 then
      return
    end
    for i = 1, #ended, 2 do
      local entry = unpacked(redis.call('HGET', book.state, 'x:' .. ended[i]))
      if entry.held then
        add(book, 'held', -entry.amount)
        entry.held = false
        put(book, ended[i], entry, tonumber(ended[i + 1]) + LAPSED_KEPT_MS)
      else
        drop(book, ended[i], entry)
      end
    end
  end
end

-- The book at an index, read once with its leases looked after; nil where it has no state. `id`: read this entry too.
local function book_at(index, id)
  local book = {state = KEYS[2 * index], leases = KEYS[2 * index + 1]}
  local fields = redis.call('HLEN', book.state)
  book.open = redis.call('ZCARD', book.leases)
  if fields ~= FIXED + book.open then
    if fields + book.open > 0 then
      redis.call('UNLINK', book.state, book.leases)
    end
    return nil
  end
  local read = redis.call('HMGET', book.state, 'spent', 'held', 'epoch', 'alerted', 'mark')
  book.spent, book.held, book.mark = tonumber(read[1]), tonumber(read[2]), tonumber(read[5])
  book.epoch, book.alerted = read[3], read[4]
  expire(book)
  book.entry = id and unpacked(redis.call('HGET', book.state, 'x:' .. id))
  return book
end

local function fits(book, amount, cap)
  local already = book.entry and book.entry.held and book.entry.amount or 0
  return book.spent + book.held - already + amount <= cap
end

local function hold(book, id, amount, admitted, until_ms)
  local already = book.entry and book.entry.held and book.entry.amount or 0
  add(book, 'held', amount - already)
  put(book, id, {amount = amount, admitted = admitted, held = true}, until_ms, not book.entry)
end

local function spend(book, amount, since_mark)
  local added = math.min(amount, MONEY_MAX - book.spent)
  add(book, 'spent', added)
  if since_mark then
    redis.call('HINCRBY', book.state, 'since', written(added))
  end
end

local function append_standing(reply, book)
  reply[#reply + 1] = written(book.spent)
  reply[#reply + 1] = written(book.held)
  reply[#reply + 1] = book.epoch
  reply[#reply + 1] = book.alerted
end

local operations = {}

-- exchange, amount, admitted, lease, worker, seeding time, a cap for each book
function operations.reserve()
  local id, amount, admitted = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
  local books, missing = {}, {}
  for index = 1, #ARGV - 8 do
    books[index] = book_at(index, id)
    if not books[index] then
      missing[#missing + 1] = index
    end
  end
  if #missing > 0 then
    local reply = {'unseeded'}
    for _, index in ipairs(missing) do
      local seeding = tonumber(redis.call('HGET', KEYS[1], KEYS[2 * index]) or 0)
      local mine = seeding <= now
      if mine then
        redis.call('HSET', KEYS[1], KEYS[2 * index], written(now + tonumber(ARGV[8])))
        redis.call('PEXPIRE', KEYS[1], SEEDING_KEPT_MS)
      end
      reply[#reply + 1] = index
      reply[#reply + 1] = mine and 1 or 0
    end
    return reply
  end
  local reply = {'reserved', 0}
  for index, book in ipairs(books) do
    if not fits(book, amount, tonumber(ARGV[8 + index])) then
      reply[2] = index
      break
    end
  end
  for _, book in ipairs(books) do
    if reply[2] == 0 then
      hold(book, id, amount, admitted, now + tonumber(ARGV[6]))
    end
    append_standing(reply, book)
  end
  return reply
end

-- lease, then for each lease: exchange, amount, admitted, number of books, a cap for each
function operations.renew()
  local until_ms = now + tonumber(ARGV[3])
  local missing, index, at = {}, 0, 4
  while ARGV[at] do
    local id, amount, admitted = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local books = tonumber(ARGV[at + 3])
    for offset = 1, books do
      index = index + 1
      local book = book_at(index, id)
      if not book then
        missing[#missing + 1] = index
      elseif book.entry and book.entry.held then
        redis.call('ZADD', book.leases, written(until_ms), id)
      elseif fits(book, amount, tonumber(ARGV[at + 3 + offset])) then
        hold(book, id, amount, admitted, until_ms)
      else
        put(book, id, {amount = amount, admitted = admitted, held = false}, now + LAPSED_KEPT_MS, not book.entry)
      end
    end
    at = at + 4 + books
  end
  return missing
end

-- for each settlement: exchange, actual, number of books
function operations.settle()
  local reply, told, index = {}, {}, 0
  for at = 3, #ARGV, 3 do
    for _ = 1, tonumber(ARGV[at + 2]) do
      index = index + 1
      local book = book_at(index, ARGV[at])
      if book then
        if book.entry then
          drop(book, ARGV[at], book.entry)
          spend(book, tonumber(ARGV[at + 1]), book.entry.admitted >= book.mark)
        end
        told[book.state] = {index = index, book = book}
      end
    end
  end
  for _, last in pairs(told) do
    reply[#reply + 1] = last.index
    append_standing(reply, last.book)
  end
  return reply
end

-- spent, mark, epoch, how long to keep it
function operations.seed()
  redis.call('HDEL', KEYS[1], KEYS[2])
  local book = book_at(1)
  if not book then
    redis.call('HSET', KEYS[2], 'epoch', ARGV[5], 'spent', ARGV[3], 'held', 0, 'mark', ARGV[4], 'since', 0,
      'audits', 0, 'audited', 0, 'alerted', 0, 'alerted_by', '')
    redis.call('PEXPIRE', KEYS[2], ARGV[6])
    book = book_at(1)
  end
  local reply = {}
  append_standing(reply, book)
  return reply
end

function operations.look()
  local reply = {}
  for index = 1, (#KEYS - 1) / 2 do
    local book = book_at(index)
    if book then
      reply[#reply + 1] = index
      append_standing(reply, book)
    end
  end
  return reply
end

-- how far apart audits are
function operations.audit()
  local book = book_at(1)
  if not book or now - tonumber(redis.call('HGET', book.state, 'audited')) < tonumber(ARGV[3]) then
    return false
  end
  local ids = redis.call('ZRANGE', book.leases, 0, -1)
  if #ids > OPEN_MAX then
    return false
  end
  local before = book.spent - tonumber(redis.call('HGET', book.state, 'since'))
  local reply, lapsed = {written(before), written(book.mark), 0}, {}
  for from = 1, #ids, 500 do
    local fields = {}
    for at = from, math.min(from + 499, #ids) do
      fields[#fields + 1] = 'x:' .. ids[at]
    end
    for offset, packed in ipairs(redis.call('HMGET', book.state, unpack(fields))) do
      local entry = unpacked(packed)
      if entry.admitted < book.mark then
        local list = entry.held and reply or lapsed
        list[#list + 1] = ids[from + offset - 1]
      end
    end
  end
  if #reply > 3 + AUDIT_EXCEPT_MAX then
    return false
  end
  for _, id in ipairs(lapsed) do
    drop(book, id, {held = false})
  end
  redis.call('HSET', book.state, 'audited', written(now))
  reply[3] = redis.call('HINCRBY', book.state, 'audits', 1)
  return reply
end

-- number of the audit, what was missing, the next mark
function operations.repair()
  local book = book_at(1)
  if not book or ARGV[3] ~= redis.call('HGET', book.state, 'audits') or tonumber(ARGV[5]) < book.mark then
    return 0
  end
  spend(book, tonumber(ARGV[4]), false)
  redis.call('HSET', book.state, 'mark', ARGV[5], 'since', 0)
  redis.call('HINCRBY', book.state, 'audits', 1)
  return 1
end

-- level, worker
function operations.alert()
  local book = book_at(1)
  if not book then
    return 0
  end
  local level, alerted = tonumber(ARGV[3]), tonumber(book.alerted)
  if level < alerted or (level == alerted and ARGV[4] ~= redis.call('HGET', book.state, 'alerted_by')) then
    return 0
  end
  redis.call('HSET', book.state, 'alerted', level, 'alerted_by', ARGV[4])
  return 1
end

return operations[ARGV[1]]()
