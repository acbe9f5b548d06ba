"""What is said: `Words` fills in `{s}` and its like. Without a mask, a reply is determined by what was said before."""

from __future__ import annotations

READS = """
GET {s} | STRLEN {s} | GETRANGE {s} {int} {int} | SUBSTR {s} 0 -2 | MGET {s} {s} {h} | GETBIT {s} {small}
BITCOUNT {s} | BITCOUNT {s} {int} {int} | BITCOUNT {s} 0 20 BIT | BITPOS {s} 1 | BITPOS {s} 0 1 | LCS {s} {s}
LCS {s} {s} IDX
LCS {s} {s} LEN | BITFIELD_RO {s} GET u8 0 GET i5 3
HGET {h} {f} | HMGET {h} {f} {f} | HGETALL {h} | HKEYS {h} | HVALS {h} | HLEN {h} | HEXISTS {h} {f} | HSTRLEN {h} {f}
HSCAN {h} 0 | HSCAN {h} 0 MATCH f* COUNT 100
LLEN {l} | LRANGE {l} 0 -1 | LRANGE {l} {int} {int} | LINDEX {l} {int} | LPOS {l} {v} | LPOS {l} a COUNT 0 RANK -1
SMEMBERS {i} | SCARD {i} | SISMEMBER {i} {small} | SMISMEMBER {i} 1 2 {small} | SUNION {i} {i} | SINTER {i} {i}
SDIFF {i} {i}
SINTERCARD 2 {i} {i} | SINTERCARD 2 {i} {i} LIMIT 1 | SSCAN {i} 0 COUNT 1000 | SORT_RO {i} DESC
SORT_RO {l} ALPHA LIMIT 0 3
ZRANGE {z} 0 -1 | ZRANGE {z} 0 -1 WITHSCORES | ZRANGE {z} -inf +inf BYSCORE LIMIT 0 2 | ZRANGE {z} [a [c BYLEX
ZREVRANGE {z} 0 1
ZRANGEBYSCORE {z} -inf (3 WITHSCORES | ZREVRANGEBYSCORE {z} 9 0 | ZRANGEBYLEX {z} - + | ZREVRANGEBYLEX {z} + -
ZSCORE {z} {m}
ZMSCORE {z} {m} {m} | ZRANK {z} {m} | ZREVRANK {z} {m} | ZCARD {z} | ZCOUNT {z} 0 {small} | ZLEXCOUNT {z} - [m
ZSCAN {z} 0
ZUNION 2 {z} {z} WITHSCORES | ZINTER 2 {z} {z} WEIGHTS 2 1.5 | ZDIFF 2 {z} {z} WITHSCORES | ZINTERCARD 2 {z} {z}
XLEN {x} | XRANGE {x} - + | XRANGE {x} 1 + COUNT 2 | XREVRANGE {x} + - COUNT 1 | XREAD COUNT 2 STREAMS {x} {x} 0 2-0
XINFO STREAM {x} | XPENDING {x} grp | XREAD STREAMS {x} 99999
GEOPOS {g} {m} {m} | GEODIST {g} a b km | GEOHASH {g} a b c
GEOSEARCH {g} FROMLONLAT 15 37 BYRADIUS 400 km ASC WITHCOORD WITHDIST
GEOSEARCH {g} FROMMEMBER a BYBOX 900 900 km DESC WITHHASH | GEORADIUS_RO {g} 15 37 300 km ASC
GEORADIUSBYMEMBER_RO {g} a 100 mi ASC
PFCOUNT {p} | PFCOUNT {p} {p}
EXISTS {any} {any} | TYPE {any} | EXPIRETIME {any} | PEXPIRETIME {any} | TOUCH {any} | NUMBER TTL {mortal}
NUMBER PTTL {mortal} | GET {mortal}
UNORDERED SMEMBERS {w} | UNORDERED SUNION {w} {w} | UNORDERED SDIFF {w} {w} | UNORDERED SINTER {w} {w}
UNORDERED SSCAN {w} 0 COUNT 1000
SISMEMBER {w} {v} | EVAL_RO {get} 1 {s} | GET {big} | GETRANGE {big} 5 99999 | STRLEN {big} | LRANGE {biglist} 0 -1
LLEN {biglist}
PING | PING {v} | ECHO {v}
"""
"""Parted by ` | ` and line ends; a name of a mask may stand before a command."""

WRITES = """
SET {s} {v} | SET {s} {n} | SET {s} {v} NX | SET {s} {v} XX GET | SET {s} {v} EXAT 9999999999 | SET {s} {v} KEEPTTL
SETNX {s} {v}
SETEX {mortal} 100000 {v} | PSETEX {mortal} 100000000 {v} | GETSET {s} {v} | GETDEL {s} | GETEX {s}
GETEX {s} EXAT 9999999999 | GETEX {s} PERSIST
MSET {s} {v} {s} {v} | MSETNX {s} {v} {s} {v} | APPEND {s} {v} | SETRANGE {s} {small} {v} | INCR {n_key}
DECR {n_key} | INCRBY {n_key} {int}
DECRBY {n_key} {int} | INCRBYFLOAT {n_key} 0.5 | INCR {s} | SET {n_key} {n} | SETBIT {s} {small} 1
BITOP AND {s} {s} {s} | BITOP NOT {s} {s}
BITFIELD {s} SET u8 0 {small} INCRBY i5 3 1 OVERFLOW FAIL INCRBY u2 0 3
HSET {h} {f} {v} | HSET {h} {f} {v} {f} {v} | HMSET {h} {f} {v} | HSETNX {h} {f} {v} | HDEL {h} {f} {f}
HINCRBY {h} num {int}
HINCRBYFLOAT {h} num 1.5
LPUSH {l} {v} {v} | RPUSH {l} {v} | LPUSHX {l} {v} | RPUSHX {l} {v} | LPOP {l} | RPOP {l} | LPOP {l} 2 | RPOP {l} 2
LSET {l} {int} {v}
LINSERT {l} BEFORE a {v} | LREM {l} 0 {v} | LTRIM {l} 0 5 | RPOPLPUSH {l} {l} | LMOVE {l} {l} LEFT RIGHT
LMPOP 2 {l} {l} LEFT COUNT 2
SADD {i} {small} {small} | SREM {i} {small} | SMOVE {i} {i} {small} | SPOP {i} 1000 | SUNIONSTORE {i} {i} {i}
SINTERSTORE {i} {i} {i}
SDIFFSTORE {i} {i} {i} | SADD {w} {v} {v} | SREM {w} {v} | SMOVE {w} {w} {v} | SORT {i} DESC | SORT {l} ALPHA
SORT {i} BY nosort GET #
SORT {l} ALPHA STORE {l}
ZADD {z} {small} {m} | ZADD {z} {small} {m} {n} {m} | ZADD {z} NX 1.5 {m} | ZADD {z} XX GT CH {small} {m}
ZADD {z} INCR 2 {m}
ZINCRBY {z} 1.25 {m} | ZREM {z} {m} | ZREMRANGEBYSCORE {z} 8 9 | ZREMRANGEBYRANK {z} 5 6 | ZREMRANGEBYLEX {z} [x [z
ZPOPMIN {z}
ZPOPMAX {z} 2 | ZMPOP 2 {z} {z} MIN | ZUNIONSTORE {z} 2 {z} {z} | ZINTERSTORE {z} 2 {z} {z} AGGREGATE MAX
ZDIFFSTORE {z} 2 {z} {z}
ZRANGESTORE {z} {z} 0 3
XADD {x} {id} f {v} | XADD {x} {id} f {v} | XADD {x} MAXLEN 5 {id} f {v} | XADD {x} NOMKSTREAM {id} f v | XDEL {x} 1-1
XTRIM {x} MAXLEN 3
XGROUP CREATE {x} grp 0 | XGROUP CREATE {x} grp 0 MKSTREAM | XREADGROUP GROUP grp me COUNT 2 STREAMS {x} >
XACK {x} grp 1-1
XGROUP SETID {x} grp 0 | XGROUP DELCONSUMER {x} grp me | XSETID {x} 999999-1 | XCLAIM {x} grp you 0 1-1 JUSTID
XAUTOCLAIM {x} grp you 0 0
NUMBER XINFO CONSUMERS {x} grp | XINFO GROUPS {x} | NUMBER XPENDING {x} grp - + 5 | CLOCK XADD {clocked} * f v
GEOADD {g} 13.361389 38.115556 a 15.087269 37.502669 b | GEOADD {g} NX 14.{small} 37 {m}
GEOSEARCHSTORE {g} {g} FROMMEMBER a BYRADIUS 100 km
GEORADIUS {g} 15 37 200 km ASC
PFADD {p} {v} {v} | PFADD {p} {small} | PFMERGE {p} {p} {p}
DEL {any} | DEL {any} {any} | UNLINK {any} | EXPIREAT {any} 9999999999 | PEXPIREAT {any} 9999999999999
EXPIREAT {any} 9999999999 GT
PERSIST {any} | EXPIRE {any} -1 | RENAME {s} {s} | RENAMENX {l} {l} | COPY {s} {s} | COPY {z} {z} REPLACE
RESTORE {s} 0 garbage
EVAL {set} 1 {s} {v} | EVAL {get} 1 {s} | EVAL {odd} 0 | EVAL {types} 1 {any} {v}
SET {big} {bigvalue} | APPEND {big} {bigvalue} | LPUSH {biglist} {bigvalue} | DEL {big} {biglist}
"""

MASTER_ONLY = """
OBJECT ENCODING {any} | OBJECT REFCOUNT {i} | OBJECT FREQ {any} | DUMP {n_key}
NUMBER MEMORY USAGE {any} | NUMBER OBJECT IDLETIME {any}
"""
"""Reads of what a replica may hold in another form than its master."""

SERVER = """
DBSIZE | UNORDERED KEYS * | UNORDERED KEYS {any} | UNORDERED SCAN 0 COUNT 1000
UNORDERED SCAN 0 COUNT 1000 TYPE string | FLUSHDB | FLUSHALL
FLUSHALL ASYNC | RANDOMKEY nothing | SWAPDB 0 1 | SWAPDB 0 99 | COMMAND COUNT | COMMAND INFO get SET nothing
COMMAND GETKEYS MSET a b c d
COMMAND GETKEYS GET | UNORDERED COMMAND LIST FILTERBY PATTERN zunion* | COMMAND DOCS getdel
CONFIG GET maxmemory-policy | CONFIG GET nothing*
CONFIG SET lfu-decay-time 1 | CONFIG SET nothing 1 | CONFIG SET maxmemory-policy nonsense | CLOCK TIME
CLOCK LASTSAVE | ACL WHOAMI
ACL CAT nothing | ACL GETUSER nobody | ACL DRYRUN default get k | ACL NONSENSE | OBJECT HELP | OBJECT NONSENSE {s}
PUBSUB CHANNELS none*
PUBSUB NUMSUB none | PUBSUB NUMPAT | NUMBER WAIT 0 1 | CLUSTER INFO | READONLY | READWRITE | ASKING | SLOWLOG HELP
DEBUG SLEEP 0 | DEBUG nothing
MEMORY HELP | MEMORY USAGE none | LATENCY HELP | MOVE {s} 0 | MOVE {s} 5 | COPY {s} {s} DB 3 | MODULE LIST
SCRIPT EXISTS {sha} {sha} | SCRIPT FLUSH
SCRIPT LOAD {script} | SCRIPT KILL | SCRIPT NONSENSE | EVALSHA {sha} 1 {s} {v} | EVALSHA_RO {sha} 1 {s} {v}
EVAL {script} 1 {s} {v}
EVALSHA ffffffffffffffffffffffffffffffffffffffff 0 | EVALSHA short 0 | EVAL {script} 3 {s} | EVAL {script} x {s}
EVAL {script} -1 {s}
FUNCTION LOAD {library} | FUNCTION LOAD REPLACE {library} | FUNCTION LOAD nonsense | FUNCTION DELETE lib
UNORDERED FUNCTION LIST | UNORDERED FUNCTION LIST WITHCODE
FUNCTION FLUSH | FUNCTION DUMP | FUNCTION KILL | FCALL put 1 {s} {v} | FCALL fetch 1 {s} | FCALL_RO fetch 1 {s}
FCALL_RO put 1 {s} {v} | FCALL none 0
"""
"""What concerns the server as a whole, so that no other connection may be at work meanwhile."""

CONNECTION = """
ADDRESS CLIENT INFO | AUTH limited secret | AUTH limited secret | AUTH limited wrong
GREETING HELLO 3 AUTH limited secret | ACL WHOAMI | HELLO 3 AUTH limited wrong SETNAME x | CLIENT SETINFO LIB-NAME x
HEXPIRE {h} 10 FIELDS 1 f1 | WAITAOF 0 0 0 | GET / HTTP/1.1 | SELECT {small_db} | SELECT {small_db} | SELECT 99
SELECT x | SELECT | GREETING HELLO | GREETING HELLO 2 | GREETING HELLO 3 | GREETING HELLO 3 | HELLO 4 | HELLO x
GREETING HELLO 3 SETNAME me | HELLO 3 SETNAME {bad_name} | HELLO 2 AUTH default | GREETING HELLO 3 AUTH default x
HELLO 3 AUTH nobody x | HELLO 3 NONSENSE | RESET | AUTH x | AUTH default x | AUTH nobody x | AUTH | AUTH a b c
CLIENT SETNAME me | CLIENT SETNAME {bad_name} | CLIENT SETNAME {empty} | CLIENT GETNAME | CLIENT GETNAME
NUMBER CLIENT ID | CLIENT GETREDIR | CLIENT TRACKINGINFO | CLIENT TRACKING OFF | CLIENT TRACKING ON PREFIX zz:
CLIENT TRACKING ON OPTIN OPTOUT | CLIENT TRACKING MAYBE | CLIENT TRACKING | CLIENT TRACKING ON REDIRECT 4294967296
CLIENT CACHING YES | CLIENT CACHING MAYBE | CLIENT NO-EVICT ON | CLIENT NO-EVICT OFF | CLIENT NO-EVICT x
CLIENT NO-TOUCH ON | CLIENT NONSENSE | CLIENT | CLIENT HELP | CLIENT UNBLOCK 4294967296 | CLIENT KILL ID 4294967296
CLIENT KILL 1.2.3.4:5 | CLIENT KILL ADDR 1.2.3.4:5 TYPE normal | CLIENT UNPAUSE | CLIENT REPLY MAYBE | CLIENT REPLY
CLIENT REPLY ON | CLIENT LIST ID 4294967296 | CLIENT LIST TYPE x | PING | PING {v} | PING a b | ECHO | ECHO {v}
DISCARD | UNWATCH | EXEC | WATCH {s} | WATCH | UNSUBSCRIBE | PUNSUBSCRIBE | SUNSUBSCRIBE | PUBLISH nobody {v}
SPUBLISH nobody {v} | UNSUBSCRIBE none | PUNSUBSCRIBE none* | PSUBSCRIBE | SUBSCRIBE | MONITOR x
"""

IN_TRANSACTION = """
AUTH limited secret | ACL WHOAMI | CLIENT SETINFO LIB-NAME x | NONSENSE | CLIENT NONSENSE | SET k | SELECT {small_db}
SELECT 99 | CLIENT SETNAME inside | CLIENT GETNAME | PING | PING {v} | ECHO {v} | WATCH {s} | MULTI | AUTH x | UNWATCH
HELLO 4 | BLPOP {l} 0 | BRPOP {l} 1 | BLMOVE {l} {l} LEFT LEFT 0 | BZPOPMIN {z} 0 | XREAD BLOCK 0 STREAMS {x} $
PUBLISH nobody {v} | MONITOR | EVAL {set} 1 {s} {v} | EVALSHA {sha} 1 {s} {v} | SCRIPT EXISTS {sha}
CLIENT CACHING YES | CLIENT NO-EVICT OFF | CLIENT TRACKINGINFO | SCRIPT LOAD {script} | UNSUBSCRIBE none
CONFIG GET maxmemory-policy | COMMAND COUNT | OBJECT ENCODING {s} | DBSIZE | FUNCTION LOAD {library}
FCALL fetch 1 {s}
"""

SCRIPTS = """
SCRIPT LOAD {script} | EVAL {script} 1 {s} {v} | EVALSHA {sha} 1 {s} {v} | FUNCTION LOAD REPLACE {library}
FCALL put 1 {s} {v}
"""
SCRIPTED_READS = """
EVALSHA_RO {get_sha} 1 {s} | FCALL_RO fetch 1 {s} | EVAL_RO {get} 1 {s}
"""
"""Reads by scripts that were made known to the master."""

BLOCKING = """
BLPOP {l} {short} | BRPOP {l} {l} {short} | BLMOVE {l} {l} LEFT RIGHT {short} | BRPOPLPUSH {l} {l} {short}
BLMPOP {short} 2 {l} {l} LEFT
BZPOPMIN {z} {short} | BZPOPMAX {z} {z} {short} | BZMPOP {short} 2 {z} {z} MIN COUNT 2
XREAD BLOCK 10 STREAMS {x} 5-5
XREADGROUP GROUP grp me BLOCK 10 STREAMS {x} > | XREAD BLOCK 10 STREAMS {x} $ | BLPOP {l} -1 | BLPOP {l} x
BLPOP {s} {short} | BLPOP {l}
XREAD BLOCK x STREAMS {x} 0
"""
