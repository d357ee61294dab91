-- Stands before the scripts that number, read or renew.
-- Returns the epoch and offset of a channel as they are now. A channel without a position gets the epoch
-- given.
--
-- A server that was restarted or replaced since the last look has another incarnation, and may have lost what
-- came last. The position keeps the last incarnations before ("before"), the newest first, and for each the
-- offset from which the next incarnation went on ("base"). A node that saw a higher offset in one of them can
-- tell that publications were lost.

-- Put a word before a list of words. The list keeps five: Redis stores values of up to 64 bytes compactly.
local function prepend(word, words)
    if not words then
        return word
    end
    return string.match((word or '-') .. ' ' .. words, '^%S+ %S+ ?%S* ?%S* ?%S*')
end
local function position(key, stream, ttl_ms, epoch, incarnation)
    local known = redis.call('HMGET', key, 'epoch', 'offset', 'incarnation')
    if not known[1] then
        -- First the command that fails where memory is full: behind another write, Redis would let it pass.
        redis.call('HSET', key, 'epoch', epoch, 'offset', 0, 'incarnation', incarnation)
        redis.call('HDEL', key, 'before', 'base')
        -- Offsets of a forgotten position must not meet entries that outlived it.
        redis.call('DEL', stream)
        redis.call('PEXPIRE', key, ttl_ms)
        return epoch, '0'
    end
    if known[3] ~= incarnation then
        local earlier = redis.call('HMGET', key, 'before', 'base')
        local before, base = prepend(known[3], earlier[1]), prepend(known[2], earlier[2])
        -- Where memory is full this fails. Then nothing can be published either, and the base stays what it is.
        redis.pcall('HSET', key, 'incarnation', incarnation, 'before', before, 'base', base)
    end
    return known[1], known[2]
end
