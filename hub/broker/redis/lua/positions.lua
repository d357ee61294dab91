-- The positions of many channels: a flat list of offset and epoch, each false where a channel has none.
-- KEYS: positions. ARGV: ms for which to keep each at least ("0" changes nothing).
local result = {}
for i, key in ipairs(KEYS) do
    local known = redis.pcall('HMGET', key, 'offset', 'epoch')
    if known.err then
        known = {false, false} -- the key is of another type: that is no failure of the other channels
    elseif known[2] and ARGV[1] ~= '0' then
        redis.call('PEXPIRE', key, ARGV[1], 'GT')
    end
    result[2 * i - 1], result[2 * i] = known[1], known[2]
end
return result
