-- Number a publication, keep it, and send it, as one step. Returns "offset:epoch".
-- KEYS: position, stream, idempotency key.
-- ARGV: channel, body, stream size, stream ttl ms, position ttl ms, idempotency ttl ms, PUBLISH or SPUBLISH,
--       epoch to begin with, incarnation.
local sent = redis.call('GET', KEYS[3])
if sent then
    return sent
end
local epoch = position(KEYS[1], KEYS[2], ARGV[5], ARGV[8], ARGV[9])
local offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)
local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '=', ARGV[3], '0-' .. offset, 'd', ARGV[2])
if type(added) == 'table' and added.err then
    -- The stream is ahead of the position: both begin anew.
    redis.call('DEL', KEYS[1], KEYS[2])
    epoch = position(KEYS[1], KEYS[2], ARGV[5], ARGV[8], ARGV[9])
    offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)
    redis.call('XADD', KEYS[2], '0-1', 'd', ARGV[2])
end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local result = offset .. ':' .. epoch
redis.call('SET', KEYS[3], result, 'PX', ARGV[6])
redis.call(ARGV[7], ARGV[1], '\147' .. cmsgpack.pack(offset, epoch) .. ARGV[2])
return result
