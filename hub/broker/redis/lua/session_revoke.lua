-- Leave a session to nobody, or all of a user's.
-- KEYS: session, or revocation of the user. ARGV: ttl ms.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'holder', '')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
