-- Read a stream. Returns {offset, epoch, entries}.
-- KEYS: position, stream.
-- ARGV: XRANGE or XREVRANGE, start, end, count ("0" none, "-1" all), position ttl ms, epoch to begin with,
--       incarnation.
local epoch, offset = position(KEYS[1], KEYS[2], ARGV[5], ARGV[6], ARGV[7])
local entries = {}
if ARGV[4] == '-1' then
    entries = redis.call(ARGV[1], KEYS[2], ARGV[2], ARGV[3])
elseif ARGV[4] ~= '0' then
    entries = redis.call(ARGV[1], KEYS[2], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
end
return {offset, epoch, entries}
