-- Say that a socket is gone, unless another has its session by now. Returns whether it was its own.
-- KEYS: session, socket that may come back. ARGV: socket, ttl ms, socket that may come back or '', ms that
-- it may.
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder == '' then
    return 1
elseif holder and holder ~= ARGV[1] then
    return 0
end
if ARGV[3] == '' then
    -- What was announced is over as well: a leave follows in every channel.
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'lapsed', 1)
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return 1
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
if not holder then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
