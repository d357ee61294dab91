-- Stands before the scripts that publish, after position.lua.
-- Number a publication, keep it, and send it, as one step. Returns "offset:epoch".
-- keys: position, stream, idempotency key.
-- args: channel, body, stream size, stream ttl ms, position ttl ms, idempotency ttl ms, PUBLISH or SPUBLISH,
--       epoch of a new position, incarnation.
local function publish(keys, args)
    local sent = redis.call('GET', keys[3])
    if sent then
        return sent
    end
    local epoch = position(keys[1], keys[2], args[5], args[8], args[9])
    local offset = redis.call('HINCRBY', keys[1], 'offset', 1)
    local added = redis.pcall('XADD', keys[2], 'MAXLEN', '=', args[3], '0-' .. offset, 'd', args[2])
    if type(added) == 'table' and added.err then
        -- The stream is ahead of the position, or is no stream: both begin again.
        redis.call('DEL', keys[1], keys[2])
        epoch = position(keys[1], keys[2], args[5], args[8], args[9])
        offset = redis.call('HINCRBY', keys[1], 'offset', 1)
        redis.call('XADD', keys[2], '0-1', 'd', args[2])
    end
    redis.call('PEXPIRE', keys[2], args[4])
    redis.call('PEXPIRE', keys[1], args[5])
    local result = offset .. ':' .. epoch
    redis.call('SET', keys[3], result, 'PX', args[6])
    redis.call(args[7], args[1], '\147' .. cmsgpack.pack(offset, epoch) .. args[2])
    return result
end
