-- Append a message to the log of the bus and send it to every node with the ids of its entry and of the one
-- before, as one step, once for a repeat key. Returns the id of the entry.
-- KEYS: log, repeat key.
-- ARGV: channel of the bus, message, entries that the log keeps, repeat ttl ms, PUBLISH or SPUBLISH.
local sent = redis.call('GET', KEYS[2])
if sent then
    return sent
end
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('XADD', KEYS[1], '*', 'v', '1') -- the first entry: as long as it is there, nothing was trimmed
end
local before = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1]
local entry = redis.call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[3], '*', 'd', ARGV[2])
redis.call('SET', KEYS[2], entry, 'PX', ARGV[4])
redis.call(ARGV[5], ARGV[1], entry .. ',' .. before .. ' ' .. ARGV[2])
return entry
