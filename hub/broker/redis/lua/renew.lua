-- Give a channel another epoch where a position that was seen is no longer a true one: the server lost what came
-- last, so that the same offsets are, or will be, of other publications. Returns 1 where it did.
-- KEYS: position, stream.
-- ARGV: epoch and offset that were seen, incarnation they were seen in, position ttl ms, another epoch,
--       incarnation.
local known = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'incarnation', 'before', 'base')
if known[1] ~= ARGV[1] then
    return 0 -- whoever compares epochs sees it
end
local seen = tonumber(ARGV[2])
local intact
if known[3] == ARGV[3] then
    intact = seen <= tonumber(known[2]) -- nothing was published since
elseif known[4] == ARGV[3] then
    intact = seen <= tonumber(known[5])
else
    intact = false -- replaced more than once: what was lost cannot be told
end
position(KEYS[1], KEYS[2], ARGV[4], ARGV[5], ARGV[6])
if intact then
    return 0
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[5])
return 1
