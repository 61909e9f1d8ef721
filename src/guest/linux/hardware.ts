/** What each hypervisor shows a Linux guest: the modules for its disk controllers, and how its first disk is called. */
import type { Target } from '../plan.ts';
import type { DiskPrefix } from './device-names.ts';

export interface Hardware {
  readonly controller: string;
  /** Any of these controllers may be given; all of them are made ready. */
  readonly modules: readonly string[];
  readonly prefix: DiskPrefix;
  /** Those of the controllers on which disks have the prefix, where they do not on all. */
  readonly named?: string;
}

export const hardware: Readonly<Record<Target, Hardware>> = {
  qemu: { controller: 'IDE or AHCI', modules: ['ata_piix', 'ata_generic', 'ahci', 'sd_mod'], prefix: 'sd' },
  'qemu-virtio': {
    controller: 'virtio-blk or virtio-scsi',
    modules: ['virtio_pci', 'virtio_blk', 'virtio_scsi', 'sd_mod'],
    prefix: 'vd',
    named: 'virtio-blk',
  },
  'hyperv-gen1': {
    controller: 'IDE or SCSI of Hyper-V',
    modules: ['hv_vmbus', 'hv_storvsc', 'ata_piix', 'ata_generic', 'sd_mod'],
    prefix: 'sd',
  },
  'hyperv-gen2': {
    controller: 'SCSI of Hyper-V',
    modules: ['hv_vmbus', 'hv_storvsc', 'pci_hyperv', 'hyperv_keyboard', 'sd_mod'],
    prefix: 'sd',
  },
  vmware: {
    controller: 'PVSCSI, LSI Logic, SATA or NVMe',
    modules: ['vmw_pvscsi', 'mptspi', 'mptsas', 'ahci', 'ata_piix', 'nvme', 'sd_mod'],
    prefix: 'sd',
    named: 'PVSCSI, LSI Logic or SATA',
  },
  virtualbox: {
    controller: 'AHCI, IDE or LSI Logic',
    modules: ['ahci', 'ata_piix', 'mptspi', 'mptsas', 'sd_mod'],
    prefix: 'sd',
  },
};

/** Drivers of disk controllers by which a description says what a guest is ready for. */
export const storageDrivers = [...new Set(Object.values(hardware).flatMap(({ modules }) => modules))].filter(
  (name) => !['sd_mod', 'hyperv_keyboard', 'hv_vmbus', 'pci_hyperv', 'virtio_pci'].includes(name),
);
