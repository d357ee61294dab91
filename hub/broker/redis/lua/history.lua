-- Read a stream. Returns {offset, epoch, entries}.
-- KEYS: position, stream.
-- ARGV: XRANGE or XREVRANGE, start, end, count ("0" none, "-1" all), position ttl ms, epoch of a new
-- position,
--       bytes after which to stop ("0" for no bound), incarnation.
local epoch, offset = position(KEYS[1], KEYS[2], ARGV[5], ARGV[6], ARGV[8])
local left, bytes_max = tonumber(ARGV[4]), tonumber(ARGV[7])
if left == 0 then
    return {offset, epoch, {}}
end
if bytes_max == 0 then
    if left < 0 then
        return {offset, epoch, redis.call(ARGV[1], KEYS[2], ARGV[2], ARGV[3])}
    end
    return {offset, epoch, redis.call(ARGV[1], KEYS[2], ARGV[2], ARGV[3], 'COUNT', left)}
end
-- In steps, each as large as the entries so far say that the rest may be: the stream is never read whole.
local entries, size, start, step = {}, 0, ARGV[2], 1
while left ~= 0 do
    local count = left < 0 and step or math.min(step, left)
    local read = redis.call(ARGV[1], KEYS[2], start, ARGV[3], 'COUNT', count)
    for _, entry in ipairs(read) do
        entries[#entries + 1] = entry
        for _, text in ipairs(entry[2]) do
            size = size + #text
        end
        if size >= bytes_max then
            return {offset, epoch, entries}
        end
    end
    if #read < count then
        break
    end
    start = '(' .. read[#read][1]
    left = left < 0 and left or left - count
    step = math.max(1, math.min(1000, math.floor((bytes_max - size) * #entries / size)))
end
return {offset, epoch, entries}
