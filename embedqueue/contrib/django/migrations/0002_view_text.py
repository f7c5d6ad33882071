"""A permission to see the texts of items; there is no table."""

from django.db import migrations


class Migration(migrations.Migration):
    """Nothing but a permission."""

    dependencies = (("embedqueue", "0001_initial"),)
    operations = (
        migrations.AlterModelOptions(
            name="queue",
            options={
                "verbose_name": "queue",
                "verbose_name_plural": "queues",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view", "change"),
                "permissions": (("view_text", "Can view the texts of items"),),
            },
        ),
    )
