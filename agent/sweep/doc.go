// Package sweep proves by trying that an agent may die anywhere: its tests run
// real deployments and end them at every file-system and process operation, by
// kill, by a full or failing disk, and by power loss. See TestSweep.
package sweep
