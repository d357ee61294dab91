-- Send a publication that is in no history, once for a key. Returns "offset:epoch".
-- KEYS: idempotency key. ARGV: channel, envelope, idempotency ttl ms, PUBLISH or SPUBLISH.
local sent = redis.call('GET', KEYS[1])
if sent then
    return sent
end
redis.call('SET', KEYS[1], '0:', 'PX', ARGV[3])
redis.call(ARGV[4], ARGV[1], ARGV[2])
return '0:'
