// Test-only Vulkan layer: makes N copies of a software driver look like N identical cards in N PCI slots.
// Every physical device gets VK_EXT_pci_bus_info, an address and a deviceUUID of its own.
//   FAKE_PCI=0000:c1:00.0,0000:65:00.0   addresses in the order of enumeration below this layer; default 0000:<index>:00.0
//   FAKE_PCI_RENAME=1                    appends " #<index>" to deviceName
//   FAKE_PCI_DISCRETE=1                  reports CPU devices as discrete GPUs
//   FAKE_PCI_KEEP_UUID=1                 leaves the driver's deviceUUID
//   FAKE_PCI_OLD=1                       reports a driver of Vulkan 1.0 without any extension
//   FAKE_PCI_SMALL=1                     reports workgroups of at most 64 invocations, fewer than WebGPU promises
// It is an *explicit* layer: the loader puts those below implicit ones, so VK_LAYER_MESA_device_select sees the addresses.
// Read on every query; index = position in the loader's list, fixed at first sight in an instance.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#define LAYER "VK_LAYER_TEST_fake_pci"
#define PCI_EXT VK_EXT_PCI_BUS_INFO_EXTENSION_NAME
#define MAX_DEVICES 64
#define KEY(handle) (*(void **)(handle))  // the loader's dispatch table: equal for an instance and its physical devices

typedef struct Inst {
  struct Inst *next;
  void *key;
  VkInstance handle;
  PFN_vkGetInstanceProcAddr gipa;
  PFN_vkDestroyInstance destroy;
  PFN_vkEnumeratePhysicalDevices enumerate;
  PFN_vkGetPhysicalDeviceProperties props;
  PFN_vkGetPhysicalDeviceProperties2 props2;
  PFN_vkEnumerateDeviceExtensionProperties exts;
  uint32_t count;
  VkPhysicalDevice devices[MAX_DEVICES];
} Inst;
typedef struct Dev {
  struct Dev *next;
  void *key;
  PFN_vkGetDeviceProcAddr gdpa;
} Dev;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Inst *insts;
static Dev *devs;

static Inst *inst_of(void *key) {
  pthread_mutex_lock(&lock);
  Inst *i = insts;
  while (i && i->key != key) i = i->next;
  pthread_mutex_unlock(&lock);
  return i;
}

static PFN_vkGetDeviceProcAddr gdpa_of(void *key, int forget) {
  pthread_mutex_lock(&lock);
  Dev **p = &devs, *d;
  while ((d = *p) && d->key != key) p = &d->next;
  PFN_vkGetDeviceProcAddr f = d ? d->gdpa : NULL;
  if (d && forget) { *p = d->next; free(d); }
  pthread_mutex_unlock(&lock);
  return f;
}

// ---- which device is it -------------------------------------------------------------------------

static uint32_t index_of(Inst *in, VkPhysicalDevice pd) {
  for (int listed = 0;; listed = 1) {
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < in->count; i++)
      if (in->devices[i] == pd) { pthread_mutex_unlock(&lock); return i; }
    pthread_mutex_unlock(&lock);
    if (listed) return MAX_DEVICES - 1;
    VkPhysicalDevice all[MAX_DEVICES];
    uint32_t n = MAX_DEVICES;
    in->enumerate(in->handle, &n, all);
    pthread_mutex_lock(&lock);
    for (uint32_t k = 0; k < n; k++) {  // append only: an index never changes
      uint32_t i = 0;
      while (i < in->count && in->devices[i] != all[k]) i++;
      if (i == in->count && i < MAX_DEVICES) in->devices[in->count++] = all[k];
    }
    pthread_mutex_unlock(&lock);
  }
}

static void address_of(uint32_t index, uint32_t a[4]) {
  a[0] = 0, a[1] = index, a[2] = 0, a[3] = 0;
  const char *s = getenv("FAKE_PCI");
  for (uint32_t i = 0; s && i < index; i++) if ((s = strchr(s, ','))) s++;
  if (s && *s && sscanf(s, "%x:%x:%x.%x", &a[0], &a[1], &a[2], &a[3]) != 4)
    fprintf(stderr, "%s: FAKE_PCI entry %u is not dddd:bb:dd.f\n", LAYER, index);
}

static int on(const char *name) { const char *v = getenv(name); return v && !strcmp(v, "1"); }

// ---- what is reported -----------------------------------------------------------------------------

static void edit_base(uint32_t index, VkPhysicalDeviceProperties *p) {
  if (on("FAKE_PCI_DISCRETE") && p->deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU)
    p->deviceType = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
  if (on("FAKE_PCI_OLD")) p->apiVersion = VK_API_VERSION_1_0;
  if (on("FAKE_PCI_SMALL")) p->limits.maxComputeWorkGroupInvocations = 64;
  size_t n = strlen(p->deviceName);
  if (on("FAKE_PCI_RENAME")) snprintf(p->deviceName + n, sizeof p->deviceName - n, " #%u", index);
}

static void edit_uuid(uint32_t index, uint8_t uuid[VK_UUID_SIZE]) {
  if (on("FAKE_PCI_KEEP_UUID")) return;
  memcpy(uuid, "fakepci\0\0\0\0\0\0\0\0", VK_UUID_SIZE);
  uuid[VK_UUID_SIZE - 1] = (uint8_t)(index + 1);
}

static VKAPI_ATTR void VKAPI_CALL get_props(VkPhysicalDevice pd, VkPhysicalDeviceProperties *p) {
  Inst *in = inst_of(KEY(pd));
  in->props(pd, p);
  edit_base(index_of(in, pd), p);
}

// The PCI struct is kept from the driver, which may not know it.
static VKAPI_ATTR void VKAPI_CALL get_props2(VkPhysicalDevice pd, VkPhysicalDeviceProperties2 *p) {
  Inst *in = inst_of(KEY(pd));
  uint32_t index = index_of(in, pd), a[4];
  VkBaseOutStructure *before = (void *)p, *pci;
  while (before->pNext && before->pNext->sType != VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PCI_BUS_INFO_PROPERTIES_EXT) before = before->pNext;
  if ((pci = before->pNext)) before->pNext = pci->pNext;
  in->props2(pd, p);
  edit_base(index, &p->properties);
  for (VkBaseOutStructure *s = p->pNext; s; s = s->pNext) {
    if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES) edit_uuid(index, ((VkPhysicalDeviceIDProperties *)s)->deviceUUID);
    if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES) edit_uuid(index, ((VkPhysicalDeviceVulkan11Properties *)s)->deviceUUID);
  }
  if (!(before->pNext = pci)) return;
  VkPhysicalDevicePCIBusInfoPropertiesEXT *b = (void *)pci;
  address_of(index, a);
  b->pciDomain = a[0], b->pciBus = a[1], b->pciDevice = a[2], b->pciFunction = a[3];
}

static VKAPI_ATTR VkResult VKAPI_CALL get_exts(VkPhysicalDevice pd, const char *layer, uint32_t *count, VkExtensionProperties *out) {
  if (layer && !strcmp(layer, LAYER)) { *count = 0; return VK_SUCCESS; }
  Inst *in = inst_of(KEY(pd));
  if (layer) return in->exts(pd, layer, count, out);
  uint32_t n = 0, has = 0;
  in->exts(pd, NULL, &n, NULL);
  VkExtensionProperties *e = calloc(n + 1, sizeof *e);
  VkResult r = in->exts(pd, NULL, &n, e);
  for (uint32_t i = 0; i < n; i++) has |= !strcmp(e[i].extensionName, PCI_EXT);
  if (!has) {
    strcpy(e[n].extensionName, PCI_EXT);
    e[n++].specVersion = VK_EXT_PCI_BUS_INFO_SPEC_VERSION;
  }
  if (on("FAKE_PCI_OLD")) n = 0;
  if (out) {
    uint32_t room = *count;
    *count = n < room ? n : room;
    memcpy(out, e, *count * sizeof *e);
    if (*count < n) r = VK_INCOMPLETE;
  } else *count = n;
  free(e);
  return r;
}

// ---- the chain --------------------------------------------------------------------------------------

static VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo *ci, const VkAllocationCallbacks *al, VkInstance *out) {
  VkLayerInstanceCreateInfo *c = (void *)ci->pNext;
  while (c && !(c->sType == VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO && c->function == VK_LAYER_LINK_INFO)) c = (void *)c->pNext;
  if (!c) return VK_ERROR_INITIALIZATION_FAILED;
  PFN_vkGetInstanceProcAddr gipa = c->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  c->u.pLayerInfo = c->u.pLayerInfo->pNext;
  VkResult r = ((PFN_vkCreateInstance)gipa(NULL, "vkCreateInstance"))(ci, al, out);
  if (r != VK_SUCCESS) return r;
  Inst *in = calloc(1, sizeof *in);
  in->key = KEY(*out), in->handle = *out, in->gipa = gipa;
  in->destroy = (void *)gipa(*out, "vkDestroyInstance");
  in->enumerate = (void *)gipa(*out, "vkEnumeratePhysicalDevices");
  in->props = (void *)gipa(*out, "vkGetPhysicalDeviceProperties");
  in->props2 = (void *)gipa(*out, "vkGetPhysicalDeviceProperties2");
  if (!in->props2) in->props2 = (void *)gipa(*out, "vkGetPhysicalDeviceProperties2KHR");
  in->exts = (void *)gipa(*out, "vkEnumerateDeviceExtensionProperties");
  pthread_mutex_lock(&lock);
  in->next = insts, insts = in;
  pthread_mutex_unlock(&lock);
  return r;
}

static VKAPI_ATTR void VKAPI_CALL destroy_instance(VkInstance inst, const VkAllocationCallbacks *al) {
  if (!inst) return;
  pthread_mutex_lock(&lock);
  Inst **p = &insts;
  while ((*p)->key != KEY(inst)) p = &(*p)->next;
  Inst *in = *p; *p = in->next;
  pthread_mutex_unlock(&lock);
  in->destroy(inst, al);
  free(in);
}

// The driver does not know the added extension, so it is taken out of what the application enables.
static VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice pd, const VkDeviceCreateInfo *ci, const VkAllocationCallbacks *al,
                                                    VkDevice *out) {
  VkLayerDeviceCreateInfo *c = (void *)ci->pNext;
  while (c && !(c->sType == VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO && c->function == VK_LAYER_LINK_INFO)) c = (void *)c->pNext;
  if (!c) return VK_ERROR_INITIALIZATION_FAILED;
  PFN_vkGetInstanceProcAddr gipa = c->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  PFN_vkGetDeviceProcAddr gdpa = c->u.pLayerInfo->pfnNextGetDeviceProcAddr;
  c->u.pLayerInfo = c->u.pLayerInfo->pNext;
  VkDeviceCreateInfo copy = *ci;
  const char **names = calloc(ci->enabledExtensionCount + 1, sizeof *names);
  copy.enabledExtensionCount = 0, copy.ppEnabledExtensionNames = names;
  for (uint32_t i = 0; i < ci->enabledExtensionCount; i++)
    if (strcmp(ci->ppEnabledExtensionNames[i], PCI_EXT)) names[copy.enabledExtensionCount++] = ci->ppEnabledExtensionNames[i];
  VkResult r = ((PFN_vkCreateDevice)gipa(inst_of(KEY(pd))->handle, "vkCreateDevice"))(pd, &copy, al, out);
  free(names);
  if (r != VK_SUCCESS) return r;
  Dev *d = calloc(1, sizeof *d);
  d->key = KEY(*out), d->gdpa = gdpa;
  pthread_mutex_lock(&lock);
  d->next = devs, devs = d;
  pthread_mutex_unlock(&lock);
  return r;
}

static VKAPI_ATTR void VKAPI_CALL destroy_device(VkDevice dev, const VkAllocationCallbacks *al) {
  if (dev) ((PFN_vkDestroyDevice)gdpa_of(KEY(dev), 1)(dev, "vkDestroyDevice"))(dev, al);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL device_proc(VkDevice dev, const char *name) {
  if (!strcmp(name, "vkGetDeviceProcAddr")) return (PFN_vkVoidFunction)device_proc;
  if (!strcmp(name, "vkDestroyDevice")) return (PFN_vkVoidFunction)destroy_device;
  return gdpa_of(KEY(dev), 0)(dev, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL instance_proc(VkInstance inst, const char *name) {
#define MINE(n, f) if (!strcmp(name, n)) return (PFN_vkVoidFunction)f
  MINE("vkGetInstanceProcAddr", instance_proc);
  MINE("vkCreateInstance", create_instance);
  MINE("vkDestroyInstance", destroy_instance);
  MINE("vkCreateDevice", create_device);
  MINE("vkGetDeviceProcAddr", device_proc);
  MINE("vkDestroyDevice", destroy_device);
  MINE("vkGetPhysicalDeviceProperties", get_props);
  MINE("vkGetPhysicalDeviceProperties2", get_props2);
  MINE("vkGetPhysicalDeviceProperties2KHR", get_props2);
  MINE("vkEnumerateDeviceExtensionProperties", get_exts);
  Inst *in = inst ? inst_of(KEY(inst)) : NULL;
  return in ? in->gipa(inst, name) : NULL;
}

__attribute__((visibility("default"))) VKAPI_ATTR VkResult VKAPI_CALL vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *v) {
  if (v->loaderLayerInterfaceVersion > 2) v->loaderLayerInterfaceVersion = 2;
  v->pfnGetInstanceProcAddr = instance_proc;
  v->pfnGetDeviceProcAddr = device_proc;
  v->pfnGetPhysicalDeviceProcAddr = NULL;
  return VK_SUCCESS;
}
