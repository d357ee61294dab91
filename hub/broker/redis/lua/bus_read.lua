-- Read the log of the bus. Returns {entries, id of the newest entry or '', whether nothing is missing
-- between}.
-- KEYS: log. ARGV: id after which to read ("" for the oldest), entries at the most.
if redis.call('EXISTS', KEYS[1]) == 0 then
    -- Begin the log: a later loss of all of it can then be told from a log where nothing was ever written.
    redis.pcall('XADD', KEYS[1], '*', 'v', '1')
end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local is_complete
if ARGV[1] == '' then
    local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
    is_complete = #oldest == 0 or oldest[1][2][1] == 'v'
else
    is_complete = #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1], 'COUNT', 1) == 1
end
local entries = {}
if ARGV[2] ~= '0' then
    entries = redis.call('XRANGE', KEYS[1], ARGV[1] == '' and '-' or '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
end
return {entries, #newest == 1 and newest[1][1] or '', is_complete and 1 or 0}
