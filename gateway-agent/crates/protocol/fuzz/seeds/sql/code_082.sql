DO $$ #variable_conflict use_variable BEGIN NULL; END $$
