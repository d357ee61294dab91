-- KEYS: infos by client, expiries by client. ARGV: client.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
