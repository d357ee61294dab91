-- Read the log of the bus. Returns {entries, id of the newest entry or '', whether nothing is missing
-- between}.
-- KEYS: log. ARGV: id after which to read ("" for the oldest), entries at the most.
if redis.call('EXISTS', KEYS[1]) == 0 then
    -- Begin the log: a later loss of all of it can then be told from a log where nothing was ever written.
    redis.pcall('XADD', KEYS[1], '*', 'v', '1')
end
local function is_before(a, b)
    local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
    local b_ms, b_seq = string.match(b .. '-0', '(%d+)-(%d+)')
    return tonumber(a_ms) < tonumber(b_ms) or (a_ms == b_ms and tonumber(a_seq) < tonumber(b_seq))
end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #newest == 1 and newest[1][1] == ARGV[1] then
    return {{}, ARGV[1], 1, 0} -- what every node finds every few seconds
end
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
local begins = #oldest == 0 or oldest[1][2][1] == 'v' -- nothing was trimmed
local is_complete, is_lost
if ARGV[1] == '' then
    is_complete, is_lost = begins, false
else
    is_complete = #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1], 'COUNT', 1) == 1
    -- It is not there, and was not trimmed.
    is_lost = not is_complete and (begins or is_before(oldest[1][1], ARGV[1]))
end
local entries = {}
if ARGV[2] ~= '0' then
    entries = redis.call('XRANGE', KEYS[1], ARGV[1] == '' and '-' or '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
end
return {entries, #newest == 1 and newest[1][1] or '', is_complete and 1 or 0, is_lost and 1 or 0}
