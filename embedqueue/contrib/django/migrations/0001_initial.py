"""What stands for the queues in the admin; there is no table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Nothing but permissions."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Queue",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"))
            ],
            options={
                "verbose_name": "queue",
                "verbose_name_plural": "queues",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view", "change"),
            },
        ),
    )
