-- Who is there, as a flat list of clients and infos. KEYS: infos by client, expiries by client.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
while true do
    local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)
    if #gone == 0 then
        break
    end
    redis.call('HDEL', KEYS[1], unpack(gone))
    redis.call('ZREM', KEYS[2], unpack(gone))
end
return redis.call('HGETALL', KEYS[1])
