/* A small libnvidia-ml.so.1: NVML's own symbols, its answers read from the text file that FAKE_NVML names.
 *
 * It exists so that tests drive the real nvidia-ml-py where there is no GPU. It computes nothing that NVML computes
 * from hardware, except that a GPM metric is the difference of its counter between the two samples.
 *
 * The file holds a "key value" a line: "count 2", "0.power 250500", "0.mig.1.uuid MIG-b", "init !9".
 * - "a|b|c" answers a, then b, then c, and c from then on;
 * - "!15" answers with the error NVML_ERROR_GPU_IS_LOST; a key that is not there with NVML_ERROR_NOT_SUPPORTED (3);
 * - processes are "pid:bytes+pid:bytes" ("?" bytes: not available; "-": no process at all).
 * nvmlShutdown writes to <FAKE_NVML>.log how many GPM samples were still allocated.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };
enum { INSUFFICIENT_SIZE = 7, VERSION_MISMATCH = 25 };

typedef struct { char prefix[32]; } Device; /* "0." or "0.mig.1." */
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; unsigned long long bytes; unsigned instance, compute; } Process;
typedef struct { double counters[16]; int errors[16]; } Sample;
typedef struct { unsigned id; int status; double value; const char *text[3]; } Metric;
typedef struct { unsigned version, number; Sample *first, *second; Metric metrics[]; } Metrics;
typedef struct { unsigned version, supported; } Support;

static Device devices[64];
static int samples_allocated;
static struct { char key[64]; int calls; } asked[256];

static int *calls(const char *key)
{
    for (int i = 0; i < 255; i++) {
        if (!asked[i].key[0])
            snprintf(asked[i].key, sizeof asked[i].key, "%s", key);
        if (!strcmp(asked[i].key, key))
            return &asked[i].calls;
    }
    abort();
}

/* The next value of prefix+name; leaves the sequence where it is when `advance` is 0. Returns an NVML status. */
static int answer(const char *prefix, const char *name, char *value, int advance)
{
    char key[64], line[65536]; /* an hour of a counter */
    snprintf(key, sizeof key, "%s%s", prefix, name);
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    if (!file)
        abort();
    int found = 0;
    while (!found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        size_t length = strlen(key);
        found = !strncmp(line, key, length) && line[length] == ' ';
    }
    fclose(file);
    if (!found)
        return NOT_SUPPORTED;
    char *at = strchr(line, ' ') + 1, *next;
    int *count = calls(key);
    for (int i = 0; i < *count && (next = strchr(at, '|')); i++)
        at = next + 1;
    if (advance)
        ++*count;
    at[strcspn(at, "|")] = 0;
    if (*at == '!')
        return atoi(at + 1);
    strcpy(value, at);
    return SUCCESS;
}

static int number(const char *prefix, const char *name, unsigned long long *value)
{
    char text[512];
    int status = answer(prefix, name, text, 1);
    if (!status)
        *value = strtoull(text, NULL, 0);
    return status;
}

static int small_number(const char *prefix, const char *name, unsigned *value)
{
    unsigned long long wide;
    int status = number(prefix, name, &wide);
    if (!status)
        *value = (unsigned)wide;
    return status;
}

static int text(const Device *device, const char *name, char *value, unsigned size)
{
    char found[512];
    int status = answer(device->prefix, name, found, 1);
    if (!status)
        snprintf(value, size, "%s", found);
    return status;
}

int nvmlInitWithFlags(unsigned flags)
{
    char value[512];
    int status = answer("", "init", value, 1);
    return flags ? INVALID_ARGUMENT : status == NOT_SUPPORTED ? SUCCESS : status;
}

int nvmlShutdown(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s.log", getenv("FAKE_NVML"));
    FILE *file = fopen(path, "a");
    if (!file)
        abort();
    fprintf(file, "shut down, %d GPM samples left\n", samples_allocated);
    fclose(file);
    return SUCCESS;
}

const char *nvmlErrorString(int status) { return status == 999 ? "Unknown Error" : "an error"; }

int nvmlDeviceGetCount_v2(unsigned *count) { return small_number("", "count", count); }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device)
{
    char prefix[32], value[512];
    snprintf(prefix, sizeof prefix, "%u.", index);
    int status = answer(prefix, "handle", value, 1);
    if (status && status != NOT_SUPPORTED)
        return status;
    *device = &devices[index * 8];
    strcpy((*device)->prefix, prefix);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending)
{
    *pending = 0;
    return small_number(device->prefix, "mig", current);
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count)
{
    return small_number(device->prefix, "mig_max", count);
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **instance)
{
    char value[512];
    Device made;
    snprintf(made.prefix, sizeof made.prefix, "%.8smig.%u.", device->prefix, index);
    if (answer(made.prefix, "uuid", value, 0))
        return NOT_FOUND;
    *instance = device + 1 + index;
    **instance = made;
    return SUCCESS;
}

int nvmlDeviceGetUUID(Device *device, char *value, unsigned size) { return text(device, "uuid", value, size); }

int nvmlDeviceGetName(Device *device, char *value, unsigned size) { return text(device, "name", value, size); }

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates)
{
    rates->memory = 0;
    return small_number(device->prefix, "utilization", &rates->gpu);
}

int nvmlDeviceGetMemoryInfo_v2(Device *device, Memory *memory)
{
    if (memory->version != (sizeof(Memory) | 2 << 24))
        return VERSION_MISMATCH;
    int status = number(device->prefix, "memory_total", &memory->total);
    return status ? status : number(device->prefix, "memory_used", &memory->used);
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts)
{
    return small_number(device->prefix, "power", milliwatts);
}

int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *millijoules)
{
    return number(device->prefix, "energy", millijoules);
}

int nvmlDeviceGetTemperature(Device *device, unsigned sensor, unsigned *celsius)
{
    return sensor ? INVALID_ARGUMENT : small_number(device->prefix, "temperature", celsius);
}

int nvmlDeviceGetClockInfo(Device *device, unsigned kind, unsigned *mhz)
{
    char name[16];
    snprintf(name, sizeof name, "clock.%u", kind);
    return small_number(device->prefix, name, mhz);
}

int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *bits)
{
    return number(device->prefix, "reasons", bits);
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *processes)
{
    char list[512];
    unsigned needed = 0;
    int status = answer(device->prefix, "processes", list, processes != NULL);
    if (status)
        return status;
    for (char *at = list; *at && *at != '-'; needed++, at += strcspn(at, "+"), at += *at == '+') {
        if (!processes || needed >= *count)
            continue;
        char *bytes = strchr(at, ':') + 1;
        Process found = {(unsigned)atoi(at), *bytes == '?' ? ~0ull : strtoull(bytes, NULL, 0), 0, 0};
        processes[needed] = found;
    }
    int fits = needed <= *count;
    *count = needed;
    return fits ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlGpmQueryDeviceSupport(Device *device, Support *support)
{
    return support->version != 1 ? VERSION_MISMATCH : small_number(device->prefix, "gpm", &support->supported);
}

int nvmlGpmSampleAlloc(Sample **sample)
{
    samples_allocated++;
    *sample = calloc(1, sizeof **sample);
    return SUCCESS;
}

int nvmlGpmSampleFree(Sample *sample)
{
    samples_allocated--;
    free(sample);
    return SUCCESS;
}

int nvmlGpmSampleGet(Device *device, Sample *sample)
{
    char name[16], value[512];
    int status = answer(device->prefix, "gpm_sample", value, 1);
    if (status && status != NOT_SUPPORTED)
        return status;
    for (unsigned id = 0; id < 16; id++) {
        snprintf(name, sizeof name, "gpm.%u", id);
        sample->errors[id] = answer(device->prefix, name, value, 1);
        if (!sample->errors[id])
            sample->counters[id] = strtod(value, NULL);
    }
    return SUCCESS;
}

int nvmlGpmMetricsGet(Metrics *request)
{
    if (request->version != 1)
        return VERSION_MISMATCH;
    for (unsigned i = 0; i < request->number; i++) {
        Metric *metric = &request->metrics[i];
        if (metric->id >= 16)
            return INVALID_ARGUMENT;
        int errors[2] = {request->first->errors[metric->id], request->second->errors[metric->id]};
        metric->status = errors[0] ? errors[0] : errors[1];
        metric->value = request->second->counters[metric->id] - request->first->counters[metric->id];
    }
    return SUCCESS;
}
