-- Publish as every publication is published. If that fails, still send a message, which proves delivery.
-- Returns why the publication failed, or ''. KEYS and ARGV: those of publication.lua.
local done, result = pcall(publish, KEYS, ARGV)
if done then
    return ''
end
redis.call(ARGV[7], ARGV[1], '')
return type(result) == 'table' and result.err or tostring(result)
