/* Stands in for the vendor's runtime on any processor: it answers what the model's block says, without any arithmetic.
 *
 * The block begins with STANDIN1 anywhere in the model, then the length of the rest (u32), then records, each a kind
 * (u32), a length (u32) and content; all numbers little-endian. tests/doubles/board_models.py writes it:
 *   1 tensor    role (0 input, 1 output), n_dims, dims[16], fmt, type, qnt, zp, scale (f32), bytes, then the name
 *   2 layer     microseconds, DDR, NPU and total cycles (u32), KB (f32), then six texts, each with its zero: operator,
 *               type, target, shapes of inputs, shape of the output, full name
 *   3 memory    weight, internal (u32), dma (u64), sram, free sram (u32)
 *   4 custom string    5 target    7 setting, as NAME=VALUE
 *   6 answer    hash of the inputs (u64; FNV-1a of their bytes, one behind the other), whether it is the answer for
 *               all others (u32), count of outputs and for each its bytes (u32) and float32 values, or those of its own
 *               type where that is a wide integer; count of dumped files and for each the length of its name, the name,
 *               its bytes and content
 * A setting is also read from the environment, as STANDIN_NAME, where the block does not have it:
 *   VERSION, DRIVER  what rknn_query tells     CHIP          another target in the model is refused with -13
 *   INIT_ERROR, RUN_ERROR  what is returned    CORES         1 refuses core masks with -5
 *   HANG  seconds in rknn_run                  CRASH         abort in rknn_run
 *   SLEEP_US  time of a run                    DUMPS=0       none are written
 *   PRINT  a line on standard error of rknn_init and of each run     OLD_SIZES=1  mem_size of 8 bytes only
 *   LOG  a file to which the name of each call is appended
 */
#define _GNU_SOURCE
#include "interface.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef STANDIN_VERSION
#define STANDIN_VERSION "2.3.2 (429f97ae6b@2025-04-09T09:09:27)"
#endif

/* Found in the file itself by programs that look for the version without a model. */
const char standin_version[] = "librknnrt version: " STANDIN_VERSION;

#define MOST_PORTS 64
#define MOST_LAYERS 4096
#define PERF_BYTES (1 << 20)

struct record {
    const unsigned char *content;
    uint32_t length;
};

struct model {
    unsigned char *block;
    uint32_t length;
    uint32_t flags;
    uint32_t counts[2];
    struct record ports[2][MOST_PORTS];
    uint64_t hash;
    struct record current, before;
    int ran;
    int64_t microseconds;
    char *dump_folder;
    char *perf;
};

static uint32_t word(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t long_word(const unsigned char *at)
{
    return word(at) | (uint64_t)word(at + 4) << 32;
}

static float real(const unsigned char *at)
{
    uint32_t bits = word(at);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The next record of a kind from `*place` on; NULL behind the last. */
static const unsigned char *next(const struct model *model, uint32_t kind, uint32_t *place, uint32_t *length)
{
    while (*place + 8 <= model->length) {
        const unsigned char *at = model->block + *place;
        uint32_t size = word(at + 4);
        if (size > model->length - *place - 8)
            return NULL;
        *place += 8 + size;
        if (word(at) == kind) {
            *length = size;
            return at + 8;
        }
    }
    return NULL;
}

/* A setting of the block, or else of the environment; it lives until the next call. */
static const char *setting(const struct model *model, const char *name)
{
    static char found[1024];
    uint32_t place = 0, length;
    const unsigned char *at;
    size_t width = strlen(name);
    while (model && (at = next(model, 7, &place, &length)))
        if (length > width && !memcmp(at, name, width) && at[width] == '=' && length - width <= sizeof found) {
            memcpy(found, at + width + 1, length - width - 1);
            found[length - width - 1] = 0;
            return found;
        }
    snprintf(found, sizeof found, "STANDIN_%s", name);
    return getenv(found);
}

static long number(const struct model *model, const char *name, long otherwise)
{
    const char *text = setting(model, name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

static void note(const struct model *model, const char *call)
{
    const char *path = setting(model, "LOG");
    FILE *file = path && *path ? fopen(path, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", call);
        fclose(file);
    }
}

static void say(const struct model *model)
{
    const char *text = setting(model, "PRINT");
    if (text)
        fprintf(stderr, "%s\n", text);
}

/* Text of a record of its own; the length that it has. */
static uint32_t text_of(const struct model *model, uint32_t kind, char *into, uint32_t most)
{
    uint32_t place = 0, length = 0;
    const unsigned char *at = next(model, kind, &place, &length);
    if (!at)
        length = 0;
    if (length >= most)
        length = most - 1;
    if (at)
        memcpy(into, at, length);
    into[length] = 0;
    return length;
}

static void forget(struct model *model)
{
    if (!model)
        return;
    free(model->block);
    free(model->dump_folder);
    free(model->perf);
    free(model);
}

static struct model *model_of(rknn_context context)
{
    return (struct model *)(uintptr_t)context;
}

static int read_block(struct model *model, const unsigned char *content, uint32_t size)
{
    const unsigned char *magic = memmem(content, size, "STANDIN1", 8);
    if (!magic || size - (uint32_t)(magic - content) < 12)
        return BAD_MODEL;
    model->length = word(magic + 8);
    if (model->length > size - (uint32_t)(magic - content) - 12)
        return BAD_MODEL;
    model->block = malloc(model->length ? model->length : 1);
    if (!model->block)
        return NO_MEMORY;
    memcpy(model->block, magic + 12, model->length);
    uint32_t place = 0, length;
    const unsigned char *at;
    while ((at = next(model, 1, &place, &length))) {
        uint32_t role = word(at) & 1;
        if (length < 96 || word(at + 4) > 16 || model->counts[role] == MOST_PORTS)
            return BAD_MODEL;
        model->ports[role][model->counts[role]++] = (struct record){at, length};
    }
    return 0;
}

int rknn_init(rknn_context *context, void *content, uint32_t size, uint32_t flags, rknn_init_extend *extend)
{
    (void)extend;
    if (!context || !content || !size)
        return BAD_PARAMETER;
    struct model *model = calloc(1, sizeof *model);
    if (!model)
        return NO_MEMORY;
    int code = read_block(model, content, size);
    model->flags = flags;
    if (!code) {
        char target[64];
        const char *chip = setting(model, "CHIP");
        note(model, "init");
        say(model);
        if (text_of(model, 5, target, sizeof target) && chip && *chip && strcmp(chip, target)) {
            fprintf(stderr, "E RKNN: the model's target %s is not this chip\n", target);
            code = OTHER_TARGET;
        }
    }
    if (!code)
        code = (int)number(model, "INIT_ERROR", 0);
    const char *folder = getenv("RKNN_DUMP_DIR");
    if (!code && folder && *folder)
        model->dump_folder = strdup(folder);
    if (code) {
        forget(model);
        return code;
    }
    *context = (rknn_context)(uintptr_t)model;
    return 0;
}

int rknn_destroy(rknn_context context)
{
    if (!context)
        return BAD_CONTEXT;
    note(model_of(context), "destroy");
    forget(model_of(context));
    return 0;
}

static uint32_t elements(const unsigned char *port)
{
    uint32_t count = 1;
    for (uint32_t axis = 0; axis < word(port + 4); axis++)
        count *= word(port + 8 + 4 * axis);
    return count;
}

static int tell_port(const struct model *model, int role, void *info, uint32_t size)
{
    rknn_tensor_attr *told = info;
    if (size != sizeof *told)
        return BAD_PARAMETER;
    uint32_t index = told->index;
    if (index >= model->counts[role])
        return BAD_PARAMETER;
    const unsigned char *at = model->ports[role][index].content;
    uint32_t length = model->ports[role][index].length - 96;
    memset(told, 0, sizeof *told);
    told->index = index;
    told->n_dims = word(at + 4);
    for (uint32_t axis = 0; axis < told->n_dims; axis++)
        told->dims[axis] = word(at + 8 + 4 * axis);
    told->n_elems = elements(at);
    told->fmt = (int32_t)word(at + 72);
    told->type = (int32_t)word(at + 76);
    told->qnt_type = (int32_t)word(at + 80);
    told->zp = (int32_t)word(at + 84);
    told->scale = real(at + 88);
    told->size = told->size_with_stride = word(at + 92);
    memcpy(told->name, at + 96, length < sizeof told->name ? length : sizeof told->name - 1);
    return 0;
}

#ifndef STANDIN_MINI
static void write_table(const struct model *model, char *into, size_t most)
{
    static const char *titles = "%-4s %-18s %-8s %-6s %-40s %-22s %-23s %-12s %-12s %-20s %-12s %s\n";
    size_t used = 0;
    uint32_t place = 0, length, total = 0, index = 0;
    const unsigned char *at;
#define ADD(...)                                                                                                      \
    do {                                                                                                              \
        if (used < most)                                                                                              \
            used += (size_t)snprintf(into + used, most - used, __VA_ARGS__);                                          \
    } while (0)
    ADD("%*s\n", 90, "Network Layer Information Table");
    ADD(titles, "ID", "OpType", "DataType", "Target", "InputShape", "OutputShape", "Cycles(DDR/NPU/Total)", "Time(us)",
        "MacUsage(%)", "WorkLoad(0/1/2)", "RW(KB)", "FullName");
    while (index < MOST_LAYERS && (at = next(model, 2, &place, &length))) {
        const char *texts[6];
        uint32_t from = 20;
        for (int one = 0; one < 6; one++) {
            texts[one] = from < length ? (const char *)at + from : "";
            from += from < length ? (uint32_t)strnlen(texts[one], length - from) + 1 : 0;
        }
        char digits[16], cycles[48], microseconds[16], kilobytes[32];
        snprintf(digits, sizeof digits, "%u", ++index);
        snprintf(cycles, sizeof cycles, "%u/%u/%u", word(at + 4), word(at + 8), word(at + 12));
        snprintf(microseconds, sizeof microseconds, "%u", word(at));
        snprintf(kilobytes, sizeof kilobytes, "%.2f", (double)real(at + 16));
        /* The real one leaves a column empty where there is nothing to tell. */
        ADD(titles, digits, texts[0], texts[1], texts[2], texts[3], texts[4], cycles, microseconds, "",
            "100.0%/0.0%/0.0%", kilobytes, texts[5]);
        total += word(at);
    }
    ADD("Total Operator Elapsed Per Frame Time(us): %u\n", total);
#undef ADD
}
#endif

static int tell_version(const struct model *model, void *info)
{
    rknn_sdk_version *told = info;
    memset(told, 0, sizeof *told);
    const char *text = setting(model, "VERSION");
    snprintf(told->api_version, sizeof told->api_version, "%s", text ? text : STANDIN_VERSION);
    text = setting(model, "DRIVER");
    snprintf(told->drv_version, sizeof told->drv_version, "%s", text ? text : "0.9.8");
    return 0;
}

static int tell_memory(const struct model *model, void *info, uint32_t size)
{
    uint32_t place = 0, length, early = 8;
    const unsigned char *at = next(model, 3, &place, &length);
    int old = number(model, "OLD_SIZES", 0) != 0;
    if (size != (old ? early : sizeof(rknn_mem_size)))
        return BAD_PARAMETER;
    memset(info, 0, size);
    if (!at || length < 24)
        return 0;
    rknn_mem_size told = {0};
    told.total_weight_size = word(at);
    told.total_internal_size = word(at + 4);
#if STANDIN_API >= 104
    told.total_dma_allocated_size = long_word(at + 8);
    told.total_sram_size = word(at + 16);
    told.free_sram_size = word(at + 20);
#endif
    memcpy(info, &told, size);
    return 0;
}

int rknn_query(rknn_context context, int command, void *info, uint32_t size)
{
    struct model *model = model_of(context);
    if (!model)
        return BAD_CONTEXT;
    if (!info)
        return BAD_PARAMETER;
    switch (command) {
    case ASK_COUNTS:
        if (size != sizeof(rknn_input_output_num))
            return BAD_PARAMETER;
        memcpy(info, model->counts, sizeof model->counts);
        return 0;
    case ASK_INPUT:
    case ASK_OUTPUT:
        return tell_port(model, command == ASK_OUTPUT, info, size);
#if STANDIN_API >= 102
    case ASK_NATIVE_INPUT:
    case ASK_NATIVE_OUTPUT:
        return tell_port(model, command == ASK_NATIVE_OUTPUT, info, size);
#endif
#ifndef STANDIN_MINI
    case ASK_PERF_DETAIL:
        if (size != sizeof(rknn_perf_detail) || !(model->flags & FLAG_PERF) || !model->ran)
            return BAD_PARAMETER;
        if (!model->perf && !(model->perf = malloc(PERF_BYTES)))
            return NO_MEMORY;
        write_table(model, model->perf, PERF_BYTES);
        ((rknn_perf_detail *)info)->perf_data = model->perf;
        ((rknn_perf_detail *)info)->data_len = strlen(model->perf);
        return 0;
    case ASK_PERF_RUN:
        if (size != sizeof(rknn_perf_run) || !model->ran)
            return BAD_PARAMETER;
        ((rknn_perf_run *)info)->run_duration = model->microseconds;
        return 0;
#endif
    case ASK_VERSION:
        return size == sizeof(rknn_sdk_version) ? tell_version(model, info) : BAD_PARAMETER;
    case ASK_MEMORY:
        return tell_memory(model, info, size);
    case ASK_CUSTOM:
        if (size != sizeof(rknn_custom_string))
            return BAD_PARAMETER;
        text_of(model, 4, info, size);
        return 0;
    default:
        return BAD_PARAMETER;
    }
}

static uint32_t width_of(int32_t type)
{
    static const uint32_t widths[] = {4, 2, 1, 1, 2, 2, 4, 4, 8, 1};
    return type >= 0 && type < 10 ? widths[type] : 0;
}

int rknn_inputs_set(rknn_context context, uint32_t count, rknn_input inputs[])
{
    struct model *model = model_of(context);
    if (!model)
        return BAD_CONTEXT;
    note(model, "inputs_set");
    if (count != model->counts[0] || !inputs)
        return BAD_INPUT;
    uint64_t hash = 0xcbf29ce484222325u;
    for (uint32_t index = 0; index < count; index++) {
        const rknn_input *one = inputs + index;
        const unsigned char *port = model->ports[0][index].content, *at = one->buf;
        uint32_t wanted = one->pass_through ? word(port + 92) : elements(port) * width_of(one->type);
        if (one->index != index || !at || one->size < wanted || !wanted || one->fmt < 0 || one->fmt > 3)
            return BAD_INPUT;
        for (uint32_t place = 0; place < one->size; place++)
            hash = (hash ^ at[place]) * 0x100000001b3u;
    }
    model->hash = hash;
    return 0;
}

static int dump(const struct model *model, const struct record *answer, uint32_t from)
{
    if (!model->dump_folder || !number(model, "DUMPS", 1) || from + 4 > answer->length)
        return 0;
    uint32_t count = word(answer->content + from);
    for (from += 4; count; count--) {
        char path[4096];
        uint32_t length = word(answer->content + from), size = word(answer->content + from + 4 + length);
        snprintf(path, sizeof path, "%s/%.*s", model->dump_folder, (int)length, answer->content + from + 4);
        FILE *file = fopen(path, "wb");
        size_t wrote = file ? fwrite(answer->content + from + 8 + length, 1, size, file) : 0;
        if (file)
            fclose(file);
        if (wrote != size)
            return FAILED;
        from += 8 + length + size;
    }
    return 0;
}

int rknn_run(rknn_context context, rknn_run_extend *extend)
{
    (void)extend;
    struct model *model = model_of(context);
    if (!model)
        return BAD_CONTEXT;
    note(model, "run");
    say(model);
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    if (number(model, "CRASH", 0))
        abort();
    sleep((unsigned)number(model, "HANG", 0));
    long pause = number(model, "SLEEP_US", 0);
    if (pause > 0)
        usleep((useconds_t)pause);
    int code = (int)number(model, "RUN_ERROR", 0);
    if (code)
        return code;
    struct record found = {0}, one;
    uint32_t place = 0;
    while ((one.content = next(model, 6, &place, &one.length))) {
        if (long_word(one.content) == model->hash) {
            found = one;
            break;
        }
        if (word(one.content + 8) && !found.content)
            found = one;
    }
    if (!found.content)
        return BAD_INPUT;
    /* In asynchronous mode a run gives what the one before it made; the first gives its own. */
    model->before = model->ran && (model->flags & FLAG_ASYNC) ? model->current : found;
    model->current = found;
    model->ran = 1;
    clock_gettime(CLOCK_MONOTONIC, &end);
    model->microseconds = (end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000;
    uint32_t from = 16;
    for (uint32_t count = word(found.content + 12); count; count--)
        from += 4 + word(found.content + from);
    return dump(model, &found, from);
}

/* Values of a small type on its grid. */
static void quantize(const unsigned char *port, const unsigned char *values, uint32_t count, unsigned char *into)
{
    int32_t type = (int32_t)word(port + 76), zero = (int32_t)word(port + 84);
    float scale = real(port + 88);
    long low = type == INT8 ? -128 : type == INT16 ? -32768 : 0;
    long high = type == INT8 ? 127 : type == UINT8 ? 255 : type == INT16 ? 32767 : 65535;
    for (uint32_t index = 0; index < count; index++) {
        long value = lrintf(real(values + 4 * index) / (scale != 0 ? scale : 1)) + zero;
        value = value < low ? low : value > high ? high : value;
        for (uint32_t byte = 0; byte < width_of(type); byte++)
            into[index * width_of(type) + byte] = (unsigned char)((unsigned long)value >> 8 * byte);
    }
}

int rknn_outputs_get(rknn_context context, uint32_t count, rknn_output outputs[], rknn_output_extend *extend)
{
    (void)extend;
    struct model *model = model_of(context);
    if (!model)
        return BAD_CONTEXT;
    note(model, "outputs_get");
    if (!outputs || !model->ran || count != model->counts[1] || word(model->before.content + 12) != count)
        return BAD_OUTPUT;
    uint32_t from = 16;
    for (uint32_t index = 0; index < count; index++) {
        rknn_output *one = outputs + index;
        const unsigned char *port = model->ports[1][index].content, *values = model->before.content + from + 4;
        uint32_t held = word(values - 4), items = elements(port);
        int32_t type = (int32_t)word(port + 76);
        int wide = type == INT32 || type == UINT32 || type == INT64 || type == BOOLEAN;
        uint32_t size = one->want_float && !wide ? 4 * items : width_of(type) * items;
        if (one->index != index || one->is_prealloc || held != (wide ? width_of(type) : 4) * items)
            return BAD_OUTPUT;
        one->buf = calloc(1, size ? size : 1);
        one->size = size;
        if (!one->buf)
            return NO_MEMORY;
        if (size == held)
            memcpy(one->buf, values, size);
        else
            quantize(port, values, items, one->buf);
        from += 4 + held;
    }
    return 0;
}

int rknn_outputs_release(rknn_context context, uint32_t count, rknn_output outputs[])
{
    struct model *model = model_of(context);
    if (!model)
        return BAD_CONTEXT;
    note(model, "outputs_release");
    for (uint32_t index = 0; index < count; index++) {
        free(outputs[index].buf);
        outputs[index].buf = NULL;
    }
    return 0;
}

#if STANDIN_API >= 102 && !defined(STANDIN_MINI)
int rknn_set_core_mask(rknn_context context, int mask)
{
    struct model *model = model_of(context);
    if (!model)
        return BAD_CONTEXT;
    note(model, "set_core_mask");
    int known = mask == 0 || mask == 1 || mask == 2 || mask == 3 || mask == 4 || mask == 7;
#if STANDIN_API >= 200
    known = known || mask == 0xffff;
#endif
    return known && number(model, "CORES", 3) > 1 ? 0 : BAD_PARAMETER;
}
#endif

#if STANDIN_API >= 104 && !defined(STANDIN_MINI)
int rknn_set_batch_core_num(rknn_context context, int count)
{
    struct model *model = model_of(context);
    if (!model)
        return BAD_CONTEXT;
    return count > 0 && count <= number(model, "CORES", 3) ? 0 : BAD_PARAMETER;
}
#endif
