-- Append a message to the log of the bus and send it to every node, as one step. Returns the id of the entry.
-- KEYS: log. ARGV: channel of the bus, message, entries that the log keeps, PUBLISH or SPUBLISH.
local entry = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'd', ARGV[2])
redis.call(ARGV[4], ARGV[1], entry .. ' ' .. ARGV[2])
return entry
