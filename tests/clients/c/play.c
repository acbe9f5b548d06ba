/* The roles of tests/clients, played by Debian's hiredis. */

#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LARGE (5 * 1024 * 1024)
#define COUNT "return redis.call('INCR', KEYS[1])"
#define STORE "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"

static const char *name;
static int port;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* A command as printf has it, its reply; ends the program when the connection is lost. */
static redisReply *ask(redisContext *link, const char *format, ...)
{
    va_list words;
    va_start(words, format);
    redisReply *reply = redisvCommand(link, format, words);
    va_end(words);
    if (!reply)
        fail(format, link->errstr);
    return reply;
}

/* The reply of a command that was sent before. */
static redisReply *next(redisContext *link)
{
    void *reply = NULL;
    if (redisGetReply(link, &reply) != REDIS_OK)
        fail("reply", link->errstr);
    return reply;
}

/* A command whose reply is of no interest, unless it is an error. */
#define DO(...) expect(ask(__VA_ARGS__))

static void expect(redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR)
        fail("unexpected", reply->str);
    freeReplyObject(reply);
}

static redisContext *connect_to(void)
{
    redisContext *link = redisConnect("127.0.0.1", port);
    if (!link || link->err)
        fail("connect", link ? link->errstr : "no memory");
    DO(link, "AUTH app secret");
    return link;
}

static void print_text(const char *text, size_t length)
{
    putchar('"');
    for (size_t at = 0; at < length; at++) {
        unsigned char byte = text[at];
        if (byte < 32 || byte > 126 || byte == '"' || byte == '\\')
            printf("\\u%04x", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

/* A reply as JSON. */
static void print_reply(redisReply *reply)
{
    if (reply->type == REDIS_REPLY_NIL) {
        printf("null");
    } else if (reply->type == REDIS_REPLY_INTEGER) {
        printf("%lld", reply->integer);
    } else if (reply->type == REDIS_REPLY_ARRAY) {
        putchar('[');
        for (size_t at = 0; at < reply->elements; at++) {
            if (at)
                putchar(',');
            print_reply(reply->element[at]);
        }
        putchar(']');
    } else {
        print_text(reply->str, reply->len);
    }
}

static void print_field(const char *key, redisReply *reply)
{
    printf(",\"%s\":", key);
    print_reply(reply);
    freeReplyObject(reply);
}

/* Fields and values in turn, as a JSON object. */
static void print_hash(const char *key, redisReply *reply)
{
    printf(",\"%s\":{", key);
    for (size_t at = 0; at + 1 < reply->elements; at += 2) {
        if (at)
            putchar(',');
        print_reply(reply->element[at]);
        putchar(':');
        print_reply(reply->element[at + 1]);
    }
    putchar('}');
    freeReplyObject(reply);
}

static long long identity(redisContext *link)
{
    redisReply *reply = ask(link, "CLIENT ID");
    long long number = reply->integer;
    freeReplyObject(reply);
    return number;
}

/* The digest of a script that the server knows from now on. */
static char *load(redisContext *link, const char *source)
{
    redisReply *reply = ask(link, "SCRIPT LOAD %s", source);
    if (reply->type != REDIS_REPLY_STRING)
        fail("SCRIPT LOAD", reply->str);
    char *digest = strdup(reply->str);
    freeReplyObject(reply);
    return digest;
}

/* Add one with WATCH, while somebody else writes the first time; the attempts, and the value in the end. */
static void optimistic(redisContext *link, redisContext *other, const char *own)
{
    DO(link, "SET %s:optimistic 1", own);
    for (int attempt = 1;; attempt++) {
        DO(link, "WATCH %s:optimistic", own);
        redisReply *value = ask(link, "GET %s:optimistic", own);
        if (attempt == 1)
            DO(other, "SET %s:optimistic 10", own);
        DO(link, "MULTI");
        DO(link, "SET %s:optimistic %d", own, atoi(value->str) + 1);
        freeReplyObject(value);
        redisReply *done = ask(link, "EXEC");
        bool changed = done->type == REDIS_REPLY_ARRAY;
        freeReplyObject(done);
        if (changed) {
            printf(",\"optimistic\":[%d,", attempt);
            redisReply *end = ask(link, "GET %s:optimistic", own);
            print_reply(end);
            freeReplyObject(end);
            printf("]");
            return;
        }
    }
}

static void print_listed(redisContext *link)
{
    char start[40], found[40] = "";
    snprintf(start, sizeof start, "id=%lld ", identity(link));
    redisReply *list = ask(link, "CLIENT LIST");
    for (char *line = strtok(list->str, "\n"); line; line = strtok(NULL, "\n"))
        if (!strncmp(line, start, strlen(start)))
            sscanf(strstr(line, " name="), " name=%39s", found);
    freeReplyObject(list);
    printf(",\"listed\":[\"%s\"]", found);
}

static void print_bytes(redisContext *link, const char *own)
{
    static const char value[] = "\xff\0\r\n$-1\r\n";
    size_t length = sizeof value - 1;
    char key[200];
    size_t size = snprintf(key, sizeof key, "%s:", own);
    memcpy(key + size, "\0\r\n\xff", 4);
    DO(link, "SET %b %b", key, size + 4, value, length);
    redisReply *back = ask(link, "GET %b", key, size + 4);
    printf(",\"binary\":\"");
    for (size_t at = 0; at < (size_t)back->len; at++)
        printf("%02x", (unsigned char)back->str[at]);
    printf("\"");
    freeReplyObject(back);

    char *large = malloc(LARGE);
    for (size_t at = 0; at < LARGE; at++)
        large[at] = (char)(at * 7);
    DO(link, "SET %s:large %b", own, large, (size_t)LARGE);
    redisReply *whole = ask(link, "GET %s:large", own);
    bool same = whole->len == LARGE && !memcmp(whole->str, large, LARGE);
    printf(",\"large\":%s", same ? "true" : "false");
    freeReplyObject(whole);
    free(large);
}

static void features(redisContext *link, redisContext *other, redisContext *elsewhere, const char *moment)
{
    char own[150];
    snprintf(own, sizeof own, "%s:%s", name, moment);
    DO(link, "SET %s:string value", own);
    DO(link, "MSET %s:one 1 %s:two 2", own, own);
    DO(link, "HSET %s:hash field 1 other 2", own);
    DO(link, "RPUSH %s:list a b c", own);
    DO(elsewhere, "SET %s:database three", own);

    printf("\"%s\":{\"user\":", moment);
    redisReply *user = ask(link, "ACL WHOAMI");
    print_reply(user);
    freeReplyObject(user);
    print_field("string", ask(link, "GET %s:string", own));
    print_field("many", ask(link, "MGET %s:one %s:two %s:none", own, own, own));
    print_hash("hash", ask(link, "HGETALL %s:hash", own));
    print_field("list", ask(link, "LRANGE %s:list 0 -1", own));
    redisAppendCommand(link, "INCR %s:pipe", own);
    redisAppendCommand(link, "INCRBY %s:pipe 5", own);
    redisAppendCommand(link, "GET %s:pipe", own);
    printf(",\"pipeline\":[");
    for (int count = 0; count < 3; count++) {
        redisReply *reply = next(link);
        if (count)
            putchar(',');
        print_reply(reply);
        freeReplyObject(reply);
    }
    printf("]");
    DO(link, "MULTI");
    DO(link, "INCR %s:multi", own);
    DO(link, "INCRBY %s:multi 5", own);
    DO(link, "GET %s:multi", own);
    print_field("transaction", ask(link, "EXEC"));
    optimistic(link, other, own);
    print_field("eval", ask(link, "EVAL %s 0 x", "return {1, ARGV[1], {2}}"));
    print_field("script", ask(link, "EVAL %s 1 %s:script lua", STORE, own));
    print_bytes(link, own);
    redisReply *three = ask(elsewhere, "GET %s:database", own), *none = ask(link, "GET %s:database", own);
    printf(",\"database\":[");
    print_reply(three);
    putchar(',');
    print_reply(none);
    putchar(']');
    freeReplyObject(three);
    freeReplyObject(none);
    print_field("name", ask(link, "CLIENT GETNAME"));
    print_listed(link);
    printf("}");
}

/* What the rounds have come to. */
static int rounds, acknowledged, failures;
static char errors[100][200];

static void attempt(redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ERROR)
        acknowledged++;
    else if (failures < 100)
        snprintf(errors[failures++], sizeof errors[0], "%s", reply->str);
    freeReplyObject(reply);
}

/* Four increments, each with a way of its own, among commands that may be repeated. */
static void one_round(redisContext *link, const char *count)
{
    rounds++;
    DO(link, "SET %s:round %d", name, rounds);
    redisReply *written = ask(link, "GET %s:round", name);
    if (written->type != REDIS_REPLY_STRING || atoi(written->str) != rounds)
        fail("GET", "what was written is not there");
    freeReplyObject(written);
    attempt(ask(link, "INCR %s:counter", name));
    redisAppendCommand(link, "HSET %s:round:hash field %d", name, rounds);
    redisAppendCommand(link, "INCR %s:counter", name);
    expect(next(link));
    attempt(next(link));
    DO(link, "MULTI");
    DO(link, "INCR %s:counter", name);
    DO(link, "RPUSH %s:round:list %d", name, rounds);
    attempt(ask(link, "EXEC"));
    attempt(ask(link, "EVALSHA %s 1 %s:counter", count, name));
}

/* Write and read without a pause from before the failover until after it. */
static void during(redisContext *link)
{
    char *count = load(link, COUNT);
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    for (int number = 0; number < 20; number++)
        one_round(link, count);
    printf("ready\n");
    fflush(stdout);
    while (!poll(&input, 1, 0))
        one_round(link, count);
    for (int number = 0; number < 20; number++)
        one_round(link, count);
    free(count);
}

static void play(void)
{
    redisContext *link = connect_to(), *other = connect_to(), *elsewhere = connect_to();
    DO(link, "CLIENT SETNAME player");
    DO(elsewhere, "SELECT 3");
    /* The outcome is one line, written in one piece after `ready`. */
    char *outcome = NULL;
    size_t size = 0;
    FILE *output = stdout, *memory = open_memstream(&outcome, &size);
    stdout = memory;
    printf("{");
    features(link, other, elsewhere, "before");
    long long before = identity(link);
    DO(elsewhere, "SET %s:kept kept", name);
    char *loaded = load(link, "return 'loaded'");
    DO(link, "PUBLISH %s before", name);
    DO(other, "WATCH %s:watched", name);
    stdout = output;
    during(link);
    stdout = memory;
    DO(other, "MULTI");
    DO(other, "SET %s:watched 1", name);
    printf(",\"across\":{\"same connection\":%s", identity(link) == before ? "true" : "false");
    print_field("watched", ask(other, "EXEC"));
    print_field("database", ask(elsewhere, "GET %s:kept", name));
    print_field("script", ask(link, "EVALSHA %s 0", loaded));
    printf("},");
    free(loaded);
    DO(link, "RPUSH %s:queue element", name);
    DO(link, "PUBLISH %s after", name);
    features(link, other, elsewhere, "after");
    redisReply *counted = ask(link, "GET %s:counter", name);
    printf(",\"rounds\":%d,\"acknowledged\":%d,\"counted\":%s,\"errors\":[", rounds, acknowledged, counted->str);
    freeReplyObject(counted);
    for (int number = 0; number < failures; number++) {
        if (number)
            putchar(',');
        print_text(errors[number], strlen(errors[number]));
    }
    printf("]}\n");
    fclose(memory);
    stdout = output;
    fputs(outcome, stdout);
    free(outcome);
}

static void listen_to(void)
{
    static char messages[20000];
    size_t used = 0;
    redisContext *link = connect_to();
    DO(link, "SUBSCRIBE %s", name);
    for (bool end = false; !end;) {
        redisReply *event = next(link);
        const char *text = event->element[2]->str;
        printf("message %s\n", text);
        fflush(stdout);
        used += snprintf(messages + used, sizeof messages - used, "%s\"%s\"", used ? "," : "", text);
        end = !strcmp(text, "end");
        freeReplyObject(event);
        if (used > sizeof messages - 100)
            fail("SUBSCRIBE", "too many messages");
    }
    printf("{\"messages\":[%s]}\n", messages);
}

static void pop(void)
{
    redisContext *link = connect_to();
    printf("ready\n");
    fflush(stdout);
    redisReply *popped = ask(link, "BLPOP %s:queue 30", name);
    printf("{\"popped\":");
    print_reply(popped);
    printf("}\n");
}

/* One iteration over what has a number at its end; each step returns the cursor. */
struct iteration {
    char cursor[30];
    bool seen[1000];
    int found;
};

static void step(redisContext *link, struct iteration *state, bool fields)
{
    redisReply *reply = fields ? ask(link, "HSCAN %s:fields %s COUNT 10", name, state->cursor)
                               : ask(link, "SCAN %s MATCH %s:scan:* COUNT 10", state->cursor, name);
    if (reply->type != REDIS_REPLY_ARRAY)
        fail("SCAN", reply->str);
    snprintf(state->cursor, sizeof state->cursor, "%s", reply->element[0]->str);
    redisReply *page = reply->element[1];
    for (size_t at = 0; at < page->elements; at += fields ? 2 : 1) {
        int number = atoi(strpbrk(page->element[at]->str + (fields ? 0 : strlen(name)), "0123456789"));
        state->found += !state->seen[number];
        state->seen[number] = true;
    }
    freeReplyObject(reply);
}

static void scan(void)
{
    redisContext *link = connect_to();
    static struct iteration states[2] = {{"0"}, {"0"}};
    char word[10];
    for (int fields = 0; fields < 2; fields++)
        while (states[fields].found < 150)
            step(link, &states[fields], fields);
    printf("ready\n");
    fflush(stdout);
    if (!fgets(word, sizeof word, stdin))
        fail("stdin", "closed");
    for (int fields = 0; fields < 2; fields++)
        while (strcmp(states[fields].cursor, "0"))
            step(link, &states[fields], fields);
    printf("{\"keys\":%d,\"fields\":%d}\n", states[0].found, states[1].found);
}

int main(int count, char **words)
{
    if (count < 4)
        fail("usage", "play PORT ROLE NAME");
    port = atoi(words[1]);
    name = words[3];
    if (!strcmp(words[2], "play"))
        play();
    else if (!strcmp(words[2], "listen"))
        listen_to();
    else if (!strcmp(words[2], "pop"))
        pop();
    else if (!strcmp(words[2], "scan"))
        scan();
    else
        fail("role", words[2]);
    return 0;
}
