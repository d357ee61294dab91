-- Give a session to another socket, where one of those named had it last. Returns a verdict, whether the
-- session had lapsed, and the announcements since: fields of channels, each with 1 for a join, 0 for a leave.
-- KEYS: session, socket that may come back, revocation of the user. ARGV: socket, ttl ms, those named ...
local known = redis.call('HMGET', KEYS[1], 'holder', 'lapsed')
local holder, before = known[1], redis.call('GET', KEYS[2])
if holder == '' or redis.call('EXISTS', KEYS[3]) == 1 then
    return {'revoked', 0, {}}
end
local verdict = 'reused'
for i = 3, #ARGV do
    if not holder or holder == ARGV[i] or holder == ARGV[1] then -- the same call may come twice
        verdict = 'resumed'
        break
    elseif before == ARGV[i] then
        verdict = 'repeated'
    end
end
local announced = {}
if verdict == 'reused' or known[2] then
    redis.call('DEL', KEYS[1])
else
    local fields = redis.call('HGETALL', KEYS[1])
    for i = 1, #fields, 2 do
        if string.sub(fields[i], 1, 1) == ':' then
            announced[#announced + 1] = fields[i]
            announced[#announced + 1] = fields[i + 1]
        end
    end
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'holder', verdict == 'reused' and '' or ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {verdict, known[2] and 1 or 0, announced}
