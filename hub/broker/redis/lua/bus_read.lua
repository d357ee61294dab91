-- Read the log of the bus. Returns {entries, id of the newest entry or '', whether nothing is missing between}.
-- KEYS: log. ARGV: id after which to read, entries at the most ("0" for none).
if redis.call('EXISTS', KEYS[1]) == 0 then
    return {{}, '', ARGV[1] == '0-0' and 1 or 0}
end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local known = {}
for i = 1, #info, 2 do
    known[info[i]] = info[i + 1]
end
local entries = {}
if ARGV[2] ~= '0' then
    entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
end
local function before(a, b)
    local am, as = string.match(a, '(%d+)-(%d+)')
    local bm, bs = string.match(b, '(%d+)-(%d+)')
    return tonumber(am) < tonumber(bm) or (am == bm and tonumber(as) < tonumber(bs))
end
local lost = before(ARGV[1], known['max-deleted-entry-id']) or before(known['last-generated-id'], ARGV[1])
return {entries, known['last-generated-id'], lost and 0 or 1}
