-- Give channels another epoch whose position, as a node saw it, is no longer a true one: the server lost
-- what came
-- last, so that the same offsets are, or will be, of other publications. Returns to how many.
-- KEYS: position and stream of each channel.
-- ARGV: position ttl ms, then of each channel the epoch and offset that were seen, the incarnation they were
-- seen
--       in, and another epoch; incarnation.
local function renew(key, stream, seen_epoch, seen_offset, seen_in, epoch)
    local known = redis.pcall('HMGET', key, 'epoch', 'offset', 'incarnation', 'before', 'base')
    if known.err or known[1] ~= seen_epoch then
        -- A node that compares epochs sees another one. A key of another type must not stop the repair of
        -- others.
        return 0
    end
    local kept = known[3] == seen_in and known[2]
    local bases = string.gmatch(known[5] or '', '%S+')
    for before in string.gmatch(known[4] or '', '%S+') do
        local base = bases()
        kept = kept or before == seen_in and base
    end
    -- What was lost since an incarnation that is too long ago to be in the list cannot be told.
    local intact = kept and tonumber(seen_offset) <= (tonumber(kept) or -1)
    position(key, stream, ARGV[1], epoch, ARGV[#ARGV])
    if intact then
        return 0
    end
    redis.call('HSET', key, 'epoch', epoch)
    return 1
end
local renewed = 0
for i = 1, #KEYS, 2 do
    local first = 2 * i
    renewed = renewed + renew(KEYS[i], KEYS[i + 1], ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first
    + 3])
end
return renewed
